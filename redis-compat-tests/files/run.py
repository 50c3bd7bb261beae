#!/usr/bin/env python3
"""RDB files of redis-server are loaded here, and those written here by redis-server: for random values of every type and
encoding, with and without deadlines.

  run.py                     60 values under each of the encodings, against target/release/starling
  run.py --values 2000       the long form
  run.py --seed 17           the same values again
  run.py --target redis      redis-server against itself: checks this suite

What is compared is what the commands of the type answer, and PEXPIRETIME. redis-check-rdb looks at what is written here.
Damaged files must be refused at the start, in words, or be loaded: no server may end by a signal.
"""
import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.process import Server  # noqa: E402
from harness.wire import Connection  # noqa: E402

SPEC = importlib.util.spec_from_file_location("payloads", os.path.join(HERE, "..", "payloads", "run.py"))
payloads = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(payloads)

DATABASES = ("0", "9")
START_SECONDS = 60


def fill(values, connection, count):
    """Keys of every type in two databases, some with deadlines, some that have passed when the file is loaded."""
    now = int(time.time() * 1000)
    for database in DATABASES:
        connection.call("SELECT", database)
        for number in range(count):
            key = b"k%d" % number
            for command in values.commands(key):
                connection.call(*command)
            if values.random.random() < 0.3:
                connection.call("PEXPIREAT", key, str(now + values.random.randrange(10**7, 10**11)))
        # What is large is written in parts.
        elements = [b"%d" % number + values.element()[:300] for number in range(4000)]
        connection.call("SET", "large:string", b"".join(elements))
        connection.call("RPUSH", "large:list", *elements)
        connection.call("SADD", "large:set", *elements)
        connection.call("HSET", "large:hash", *[word for element in elements for word in (element, element)])
        connection.call("ZADD", "large:zset", *[word for element in elements for word in (values.score(), element)])
        for number in range(2000):
            connection.call("XADD", "large:stream", "%d-1" % (number + 1), "f", values.element()[:300], "g", "v")


def contents(connection):
    """{(database, key): what it holds and until when}."""
    found = {}
    for database in DATABASES:
        connection.call("SELECT", database)
        for key in connection.call("KEYS", "*"):
            found[database, key] = payloads.content(connection, key), connection.call("PEXPIRETIME", key)
    return found


def loaded(connection):
    """Waits until the server has loaded its file."""
    until = time.monotonic() + START_SECONDS
    while b"\nloading:0" not in connection.call("INFO", "persistence"):
        if time.monotonic() > until:
            raise RuntimeError("the file is not loaded after %d seconds" % START_SECONDS)
        time.sleep(0.01)
    return connection


def differences(way, expected, found):
    """How many there are; some are shown."""
    keys = [key for key in sorted(set(expected) | set(found)) if expected.get(key) != found.get(key)]
    for key in keys[:3]:
        print("%s, %r: %s, not %s" % (way, key, str(found.get(key))[:300], str(expected.get(key))[:300]))
    return len(keys)


def cross(values, count, target, encodings):
    """Failures with one file each way; and the file that the target wrote."""
    extra = [word for name, value in encodings.items() for word in ("--" + name, value)]
    failures, directory = 0, tempfile.mkdtemp(prefix="compat-files-")
    try:
        with Server("redis", extra=extra, directory=directory) as server:
            server.wait_ready()
            connection = Connection(server.port)
            fill(values, connection, count)
            expected = contents(connection)
            if connection.call("SAVE") != b"OK":
                return 1, b""
        with Server(target, extra=["--save", ""], directory=directory) as server:
            server.wait_ready(START_SECONDS)
            connection = loaded(Connection(server.port))
            failures += differences("loaded", expected, contents(connection))
            if connection.call("SAVE") != b"OK":
                return failures + 1, b""
        path = os.path.join(directory, "dump.rdb")
        check = subprocess.run(["redis-check-rdb", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check.returncode != 0:
            failures += 1
            print("redis-check-rdb:", check.stdout[-600:])
        with Server("redis", directory=directory) as server:
            server.wait_ready(START_SECONDS)
            failures += differences("written", expected, contents(loaded(Connection(server.port))))
        with open(path, "rb") as file:
            return failures, file.read()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def damaged(values, target, good):
    """Starts with a file that was changed, and has no checksum: 1 where the server ends as it must not."""
    bad = bytearray(good[:-8] + bytes(8))
    for _ in range(values.random.randrange(1, 4)):
        bad[values.random.randrange(9, len(bad) - 8)] = values.random.randrange(256)
    if values.random.random() < 0.2:
        del bad[values.random.randrange(len(bad)):]
    directory = tempfile.mkdtemp(prefix="compat-files-")
    try:
        with open(os.path.join(directory, "dump.rdb"), "wb") as file:
            file.write(bad)
        with Server(target, extra=["--save", ""], directory=directory) as server:
            try:
                server.wait_ready(START_SECONDS)
                contents(loaded(Connection(server.port)))
            except (RuntimeError, OSError):
                pass
            if server.alive():
                return 0
            code, log = server.process.returncode, server.log_tail()
            if code == 1 and ("dump.rdb" in log or "RDB" in log):
                return 0
            print("a damaged file: the server ended with %s: %s" % (code, log[-600:]))
            return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=60, help="how many under each of the encodings, in each database")
    parser.add_argument("--damaged", type=int, default=20, help="how many damaged files")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--target", default="starling", help="a short name or a command line with {port} and {dir}")
    options = parser.parse_args()
    values, failures, good = payloads.Values(options.seed), 0, b""
    for encodings in payloads.ENCODINGS:
        found, good = cross(values, options.values, options.target, encodings)
        failures += found
    if good:
        failures += sum(damaged(values, options.target, good) for _ in range(options.damaged))
    print("files: %d values under %d encodings, seed %d: %d failures"
          % (options.values, len(payloads.ENCODINGS), options.seed, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
