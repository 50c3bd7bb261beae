#!/usr/bin/env python3
"""RDB files of redis-server are loaded here, and those written here by redis-server: for random values of every type and
encoding, with and without deadlines.

  run.py                     60 values under each of the encodings, against target/release/starling
  run.py --values 2000       the long form
  run.py --seed 17           the same values again
  run.py --target redis      redis-server against itself: checks this suite
  run.py --peer BINARY       the same with another server too, of Redis 8 or Valkey: hashes have fields with deadlines then.
                             The environment variable COMPAT_PEERS names some, with colons between them

What is compared is what the commands of the type answer, PEXPIRETIME, and HPEXPIRETIME; and the libraries of functions, which
pass through a server that runs none. redis-check-rdb looks at what is
written here. Valkey loads no file of the version that has fields with deadlines: these hashes are taken away before.
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
from harness.contents import contents, differences, knows_field_deadlines, with_field_deadlines  # noqa: E402
from harness.process import Server, named_peers, redis  # noqa: E402
from harness.wire import Connection  # noqa: E402

SPEC = importlib.util.spec_from_file_location("payloads", os.path.join(HERE, "..", "payloads", "run.py"))
payloads = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(payloads)

REDIS = "redis-server"
DATABASES = ("0", "9")
START_SECONDS = 60
LIBRARIES = ["#!lua name=library%d\nredis.register_function('f%d', function() return '%s' end)" % (number, number, "x" * 50 * number)
             for number in range(3)]


def fill(values, connection, count):
    """Keys of every type in two databases, some with deadlines, some that have passed when the file is loaded."""
    now = int(time.time() * 1000)
    has_fields = knows_field_deadlines(connection)

    def deadline():
        return str(now + values.random.randrange(10**7, 10**11))

    for database in DATABASES:
        connection.call("SELECT", database)
        for number in range(count):
            key = b"k%d" % number
            for command in values.commands(key):
                connection.call(*command)
            if values.random.random() < 0.3:
                connection.call("PEXPIREAT", key, deadline())
            if has_fields and command[0] == "HSET" and values.random.random() < 0.6:
                for _ in range(values.random.randrange(1, 4)):
                    fields = values.random.sample(command[2::2], values.random.randrange(1, 1 + len(command[2::2])))
                    connection.call("HPEXPIREAT", key, deadline(), "FIELDS", len(fields), *fields)
        # What is large is written in parts.
        elements = [b"%d" % number + values.element()[:300] for number in range(4000)]
        connection.call("SET", "large:string", b"".join(elements))
        connection.call("RPUSH", "large:list", *elements)
        connection.call("SADD", "large:set", *elements)
        connection.call("HSET", "large:hash", *[word for element in elements for word in (element, element)])
        connection.call("ZADD", "large:zset", *[word for element in elements for word in (values.score(), element)])
        for number in range(2000):
            connection.call("XADD", "large:stream", "%d-1" % (number + 1), "f", values.element()[:300], "g", "v")


def loaded(connection):
    """Waits until the server has loaded its file."""
    until = time.monotonic() + START_SECONDS
    while b"\nloading:0" not in connection.call("INFO", "persistence"):
        if time.monotonic() > until:
            raise RuntimeError("the file is not loaded after %d seconds" % START_SECONDS)
        time.sleep(0.01)
    return connection


def functions(connection):
    """What the server says of its libraries, in the order of their names."""
    return sorted(map(repr, connection.call("FUNCTION", "LIST", "WITHCODE")))


def checked(reference, path):
    """Failures that the checker beside a server finds."""
    check = subprocess.run([reference.replace("-server", "-check-rdb"), path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check.returncode != 0:
        print("%s: %s" % (os.path.basename(reference), check.stdout[-600:]))
    return int(check.returncode != 0)


def cross(values, count, target, reference, encodings):
    """Failures with one file each way, how many keys came back; and the file that the target wrote."""
    extra = [word for name, value in encodings.items() for word in ("--" + name, value)]
    failures, directory = 0, tempfile.mkdtemp(prefix="compat-files-")
    with_lag = reference == REDIS
    try:
        with Server(redis(reference), extra=extra, directory=directory) as server:
            server.wait_ready()
            connection = Connection(server.port)
            fill(values, connection, count)
            is_valkey = b"valkey_version" in connection.call("INFO", "server")
            expected = contents(connection, DATABASES, with_lag)
            for library in LIBRARIES:
                connection.call("FUNCTION", "LOAD", library)
            libraries = functions(connection)
            if connection.call("SAVE") != b"OK":
                return 1, 0, b""
        with Server(target, extra=["--save", ""], directory=directory) as server:
            server.wait_ready(START_SECONDS)
            connection = loaded(Connection(server.port))
            failures += differences("loaded", expected, contents(connection, DATABASES, with_lag))
            for database, key in with_field_deadlines(expected) if is_valkey else ():
                connection.call("SELECT", database)
                failures += connection.call("DEL", key) != 1
                del expected[database, key]
            if connection.call("SAVE") != b"OK":
                return failures + 1, 0, b""
        path = os.path.join(directory, "dump.rdb")
        failures += checked(reference, path)
        with Server(redis(reference), directory=directory) as server:
            server.wait_ready(START_SECONDS)
            connection = loaded(Connection(server.port))
            failures += differences("written", expected, contents(connection, DATABASES, with_lag))
            if functions(connection) != libraries or len(libraries) != len(LIBRARIES):
                print("functions: %r, and not %r" % (functions(connection), libraries))
                failures += 1
        with open(path, "rb") as file:
            return failures, len(expected), file.read()
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
                contents(loaded(Connection(server.port)), DATABASES)
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
    parser.add_argument("--peer", action="append", default=named_peers(), help="the binary of another server; may be repeated")
    options = parser.parse_args()
    if not options.peer:
        print("skipped: files of other servers than redis-server (--peer and COMPAT_PEERS name some)")
    failures, good = 0, b""
    for reference in [REDIS] + options.peer:
        values, wrong, keys = payloads.Values(options.seed), 0, 0
        for encodings in payloads.ENCODINGS:
            found, back, good = cross(values, options.values, options.target, reference, encodings)
            wrong, keys = wrong + found, keys + back
        print("%s: %d keys there and back: %d failures" % (reference, keys, wrong), flush=True)
        failures += wrong
    if good:
        failures += sum(damaged(values, options.target, good) for _ in range(options.damaged))
    print("files: %d values under %d encodings, seed %d: %d failures"
          % (options.values, len(payloads.ENCODINGS), options.seed, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
