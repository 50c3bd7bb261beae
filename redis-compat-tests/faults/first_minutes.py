"""The first minutes of a user: variables of Kubernetes, the default files of others, sockets, pidfiles, words on the command line."""
import os
import re
import subprocess
import tempfile

from faults.places import eventually
from harness.process import REPOSITORY, Server

KUBERNETES = {"STARLING_PORT": "tcp://10.0.0.1:6379", "STARLING_SERVICE_HOST": "10.0.0.1", "STARLING_SERVICE_PORT": "6379",
              "STARLING_PORT_6379_TCP": "tcp://10.0.0.1:6379", "STARLING_PORT_6379_TCP_ADDR": "10.0.0.1", "STARLING_X": "1"}
DEFAULT_FILES = os.path.join(REPOSITORY, "tests", "data", "default_files.tsv")
# words of the command line: exit code, and what is said
WORDS = [(["check", "--help"], 0, "Usage: starling"), (["--help"], 0, "Usage: starling"), (["serverx"], 1, "no such subcommand or file"),
         (["check", "serverx"], 1, "no such subcommand or file"), (["--daemonize", "yes"], 1, "stays in the foreground")]


def said(words, extra=None):
    """Exit code and output of the program, with no variables but these."""
    done = subprocess.run(words, env=extra or {}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=30, cwd=tempfile.gettempdir())
    return done.returncode, done.stdout


def kubernetes(binary):
    code, output = said([binary, "check"], KUBERNETES)
    good = code == 0 and "STARLING_X" in output and "SERVICE" not in output
    return None if good else "code %d: %s" % (code, output[-300:])


def default_file(binary, mark):
    """What redis.conf or valkey.conf sets as it comes, read from a file."""
    with open(DEFAULT_FILES) as file, tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
        for line in file:
            columns = line.rstrip("\n").split("\t")
            if not line.startswith("#") and mark in columns[0].split(" "):
                configuration.write("%s %s\n" % (columns[1], columns[2]))
        configuration.flush()
        code, output = said([binary, "check", configuration.name])
    return None if code == 0 and "the configuration is good" in output else "code %d: %s" % (code, output[-300:])


def word(binary, words, wanted, text):
    code, output = said([binary] + words)
    return None if code == wanted and text in output else "code %d: %s" % (code, output[-300:])


def socket_and_pidfile(binary):
    with Server(binary + " --port {port} --dir {dir} --unixsocket {dir}/s --pidfile {dir}/pid") as server:
        server.wait_ready()
        _code, answer = said(["redis-cli", "-s", os.path.join(server.directory, "s"), "PING"], dict(os.environ))
        with open(os.path.join(server.directory, "pid")) as file:
            pid = file.read().strip()
        if (answer.strip(), pid) != ("PONG", str(server.pid)):
            return "redis-cli -s says %r, the pidfile %r" % (answer, pid)
        server.end()
        left = [name for name in ("s", "pid") if os.path.exists(os.path.join(server.directory, name))]
        return "left behind: %s" % left if left else None


def few_files(binary):
    """With 256 files a server asked for more clients than any kernel allows says so and takes fewer."""
    command = "sh -c 'ulimit -n 256; exec %s --port {port} --dir {dir} --maxclients 4294967294'" % binary
    with Server(command) as server:
        server.wait_ready()
        text = "maxclients has been reduced to"
        return eventually(lambda: text in server.log_tail(8000), "the log says '%s'" % text)


def fields(place):
    connection = place.connect_here()
    try:
        return set(re.findall(rb"^([a-z_0-9]+):", connection.call("INFO", "everything"), re.M))
    finally:
        connection.close()


def info_fields(place, redis):
    """What exporters read: each field that a fresh redis-server has, beside those that name commands and databases."""
    missing = {name for name in fields(redis) - fields(place) if not re.match(rb"cmdstat_|errorstat_|latency_percentiles|db\d", name)}
    return "missing: %s" % sorted(missing) if missing else None


def run(places, check):
    binary = places.binary
    check("start", "variables of Kubernetes", lambda: kubernetes(binary))
    for mark, name in (("r7", "redis.conf of 7.0"), ("r8", "redis.conf of 8.0"), ("v9", "valkey.conf of 9.1")):
        check("start", name, lambda: default_file(binary, mark))
    for words, code, text in WORDS:
        check("start", " ".join(words), lambda: word(binary, words, code, text))
    check("start", "unixsocket and pidfile", lambda: socket_and_pidfile(binary))
    check("start", "ulimit -n 256", lambda: few_files(binary))
    for place in places.tested:
        check(place.name, "INFO has every field of redis-server", lambda: info_fields(place, places.redis))
