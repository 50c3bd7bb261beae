"""Runs one file of Redis's suite in a directory of its own and says which tests passed.

External mode (the usual one) starts the server here and points the suite at it; in own-server mode the suite starts
servers itself through a stand-in for src/redis-server. A test that hangs is named by the suite when its time is over:
it is skipped in another run of the file, and the passes of all runs are united.
"""
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter

from harness.process import Server, is_redis
from harness.wire import Connection

TAGS = "-needs:repl -needs:pfdebug"
# Ports for the suite's own servers, in each run of a file.
PORTS = 400
HANG_SECONDS = 40
# Files with single tests that rightly take longer than that.
PATIENCE = {"unit/geo": 120, "unit/hyperloglog": 120, "unit/maxmemory": 120, "unit/memefficiency": 120, "unit/scan": 60,
            "unit/type/list-2": 60, "unit/type/list-3": 60, "unit/type/set": 60}
FILE_SECONDS = 280
RERUNS_MAX = 8
OK = re.compile(r"^\[ok\]: (.*) \((\d+) ms\)$")
ERR = re.compile(r"^\[err\]: (.*?)( in tests/\S+\.tcl)?$")
HUNG = re.compile(r"^\S+ => \(IN PROGRESS\) (.*)$")
OTHER = re.compile(r"^\[(ok|err|skip|ignore|ready|exception|TIMEOUT|\d+/\d+ done)\]|^\*\*\*|^Testing |^\s+The End")

STAND_IN = """#!/bin/sh
# Takes the place of redis-server for a suite that starts servers itself and waits for this line.
echo "$$:M stand-in for redis-server, PID: $$"
exec %s "$@"
"""


class Outcome:
    """Of one file: passes by name, failures as (name, details), hung names, and why the file ended early, if it did."""

    def __init__(self):
        self.passed, self.failed, self.hung, self.aborted = Counter(), {}, [], None
        self.seconds = 0.0

    def unite(self, other):
        for name, count in other.passed.items():
            self.passed[name] = max(self.passed[name], count)
        self.failed.update(other.failed)
        self.hung += other.hung
        self.aborted = other.aborted


def parse(text):
    """The outcome that the suite's output describes."""
    outcome, name, timed_out = Outcome(), None, False
    for line in text.splitlines():
        ok, err, hung = OK.match(line), ERR.match(line), HUNG.match(line)
        if ok:
            outcome.passed[ok.group(1)] += 1
        elif err:
            # Without a file it is not a test that failed, but what stands around tests.
            name = err.group(1) if err.group(2) else "outside a test: " + err.group(1)
            outcome.failed[name] = []
            continue
        elif timed_out and hung:
            outcome.hung.append(hung.group(1))
        elif line.startswith("[TIMEOUT]"):
            timed_out = True
            outcome.aborted = "timed out"
        elif timed_out and " => " in line and outcome.aborted == "timed out":
            outcome.aborted = "timed out outside a test: " + line.split(" => ", 1)[1]
        elif line.startswith("[exception]"):
            outcome.aborted = line
        if name and not OTHER.match(line):
            outcome.failed[name].append(line)
        else:
            name = None
    return outcome


def workplace(suite, stand_in):
    """A directory that looks like a built checkout: links into the suite, but a tests/tmp of its own."""
    place = tempfile.mkdtemp(prefix="upstream-")
    os.makedirs(os.path.join(place, "src"))
    os.makedirs(os.path.join(place, "tests", "tmp"))
    os.symlink(os.path.join(suite, "runtest"), os.path.join(place, "runtest"))
    for name in os.listdir(os.path.join(suite, "tests")):
        if name != "tmp":
            os.symlink(os.path.join(suite, "tests", name), os.path.join(place, "tests", name))
    for tool in ("redis-cli", "redis-benchmark"):
        os.symlink(shutil.which(tool), os.path.join(place, "src", tool))
    path = os.path.join(place, "src", "redis-server")
    with open(path, "w") as file:
        file.write(STAND_IN % stand_in)
    os.chmod(path, 0o755)
    return place


def take_all_slots(port):
    """One node of a cluster with all slots, whatever kind of server it is."""
    connection = Connection(port)
    for attempt in range(300):
        if "cluster_state:ok" in str(connection.call("CLUSTER", "INFO")):
            return
        if attempt == 20:
            connection.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        time.sleep(0.05)
    raise RuntimeError("the cluster of one node does not become ready")


# Small lists and sets are listpacks, as in 7.2, and nearly every test of these files says quicklist or hashtable.
NEWER_ENCODINGS = ("unit/type/list", "unit/type/set", "unit/sort")
# Where only sets matter, a directive brings back those of 7.0.
SETS_OF_7_0 = ["--set-max-listpack-entries", "0"]
SETS = ("unit/keyspace", "unit/scan")


class Runner:
    """Runs files of `suite` against `command` (a template with {port} and {dir}) or the `binary` itself."""

    def __init__(self, suite, command, binary, checks, log_directory):
        self.suite, self.command, self.binary, self.checks = suite, command, binary, checks
        self.log_directory = log_directory
        # Files at the same time must not try the same ports, nor those that outgoing connections get.
        bases = list(range(12000, 32000, PORTS))
        random.shuffle(bases)
        self.ports = itertools.cycle(bases)

    def run(self, file, skipped=()):
        """The united outcome of as many runs as there are hanging tests besides those skipped, and one more."""
        started, outcome = time.monotonic(), Outcome()
        for _ in range(RERUNS_MAX):
            attempt = self.attempt(file, list(skipped) + outcome.hung, FILE_SECONDS - (time.monotonic() - started))
            outcome.unite(attempt)
            if not attempt.hung or time.monotonic() - started > FILE_SECONDS - HANG_SECONDS:
                break
        outcome.seconds = time.monotonic() - started
        return outcome

    def attempt(self, file, skipped, seconds_left, tries=3):
        kind, _, name = file.rpartition(":")
        place = workplace(self.suite, self.binary)
        words = ["./runtest", "--single", name, "--durable", "--tags", TAGS, "--timeout", str(PATIENCE.get(name, HANG_SECONDS)),
                 "--baseport", str(next(self.ports)), "--portcount", str(PORTS - 40)] + self.checks
        if name in NEWER_ENCODINGS and "--ignore-encoding" not in words:
            words.append("--ignore-encoding")
        for test in skipped:
            words += ["--skiptest", test]
        server = None
        try:
            if kind == "own":
                words += ["--clients", "1"]
            else:
                cluster = kind == "cluster"
                extra = ["--cluster-enabled", "yes"] if cluster else []
                if name in SETS and not is_redis(self.command):
                    extra += SETS_OF_7_0
                server = Server(self.command, extra=extra)
                server.wait_ready()
                if cluster:
                    take_all_slots(server.port)
                    words.append("--cluster-mode")
                words += ["--host", "127.0.0.1", "--port", str(server.port)]
            text = self.output(words, place, max(seconds_left, 1))
            outcome = parse(text)
            if "address already in use" in text and not outcome.passed and not outcome.failed and tries > 1:
                return self.attempt(file, skipped, seconds_left, tries - 1)
            if server and not server.alive():
                outcome.aborted = "the server ended with %s: %s" % (server.process.returncode, server.log_tail(600))
            self.keep(file, text)
            return outcome
        finally:
            if server:
                server.close()
            shutil.rmtree(place, ignore_errors=True)

    def output(self, words, place, seconds):
        """What the suite prints. Its process group ends with it, the servers that it started too."""
        with open(os.path.join(place, "output"), "w+b") as log:
            process = subprocess.Popen(words, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                       env=dict(os.environ, TERM="dumb"), start_new_session=True)
            note = b""
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                note = b"\n[exception]: the file took too long\n"
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            log.seek(0)
            return (log.read() + note).decode("utf-8", "replace")

    def keep(self, file, text):
        os.makedirs(self.log_directory, exist_ok=True)
        with open(os.path.join(self.log_directory, file.replace("/", ".").replace(":", ".") + ".log"), "a") as log:
            log.write(text)
