"""Logs that Redis 8 and Valkey have written, with commands that Redis 7.0 does not have."""
import os
import random
import tempfile
import time

from harness.contents import contents, differences
from harness.process import Server, redis
from harness.wire import Connection

DATABASES = ("0", "1")
LOG = " --appendonly yes --appendfsync always --aof-timestamp-enabled yes"
SCRIPT = b"redis.call('INCR', KEYS[1]) redis.call('HSETEX', KEYS[2], 'PX', ARGV[1], 'FIELDS', 1, 'f1', 'of a script')"


def later_commands(seed, sequence):
    """The same commands, and between them some that came after Redis 7.0: a server refuses what it does not know."""
    chance = random.Random(seed)

    def one():
        key = b"%d" % chance.randrange(20)
        some = b"f%d" % chance.randrange(9)
        ms = b"%d" % chance.choice((1, 10**7, 10**8))
        return chance.choice([
            [b"HSETEX", b"hash" + key, b"PX", ms, b"FIELDS", b"2", some, b"word", b"other", b"17"],
            [b"HSETEX", b"hash" + key, b"FXX", b"KEEPTTL", b"FIELDS", b"1", some, b"kept"],
            [b"HPEXPIRE", b"hash" + key, ms, b"FIELDS", b"2", some, b"other"],
            [b"HEXPIRE", b"hash" + key, b"100000", b"GT", b"FIELDS", b"1", some],
            [b"HPEXPIREAT", b"hash" + key, b"1", b"FIELDS", b"1", some],
            [b"HPERSIST", b"hash" + key, b"FIELDS", b"1", some],
            [b"HGETEX", b"hash" + key, b"PX", ms, b"FIELDS", b"1", some],
            [b"HGETEX", b"hash" + key, b"PERSIST", b"FIELDS", b"1", some],
            [b"HGETDEL", b"hash" + key, b"FIELDS", b"1", some],
            [b"HINCRBY", b"hash" + key, b"number", b"3"],
            [b"SET", b"number" + key, b"1", b"IFEQ", b"7"],
            [b"DELIFEQ", b"number" + key, b"1"],
            [b"MSETEX", b"2", b"string" + key, b"a", b"number" + key, b"1", b"PX", ms],
            [b"EVAL", SCRIPT, b"2", b"number" + key, b"hash" + key, ms],
        ])

    is_open = False
    for words in sequence:
        yield words
        is_open = words == [b"MULTI"] or is_open and words != [b"EXEC"]
        if not is_open and chance.random() < 0.4:
            yield one()


class Peer:
    """One such server, and a suite that takes notes."""

    def __init__(self, suite, binary):
        self.suite = suite
        self.binary = binary

    def check(self):
        for name, extra in (("a snapshot, and commands behind it", ""), ("commands only", " --aof-use-rdb-preamble no")):
            print("%s: %s" % (self.binary, name), flush=True)
            with tempfile.TemporaryDirectory() as place:
                wanted = self.written(place, extra)
                self.loaded(place, wanted)
                self.imported(os.path.join(place, "appendonlydir"), self.suite.target, wanted)
                self.exported(place, wanted)

    def written(self, directory, extra):
        """A log of the server's in the directory; what the server itself makes of it."""
        with Server(redis(self.binary) + LOG + extra, directory=directory) as server:
            server.wait_ready()
            connection = Connection(server.port)
            self.suite.fill(connection, later_commands(self.suite.options.seed, self.suite.commands()))
            until = time.monotonic() + 30
            while not self.has_expired(connection):
                assert time.monotonic() < until, "keys or fields do not expire"
            server.end()
        # Not all that it held: commands have no words for what is pending and deleted.
        with self.suite.copied(directory) as copy, Server(redis(self.binary) + LOG + extra, directory=copy) as server:
            server.wait_ready()
            return contents(Connection(server.port), DATABASES, with_lag=False)

    def has_expired(self, connection):
        for database in DATABASES:
            connection.call("SELECT", database)
            keys = connection.call("KEYS", "*")
            if len(keys) != connection.call("DBSIZE"):
                return False
            for key in keys:
                if connection.call("TYPE", key) == b"hash":
                    if connection.call("HLEN", key) * 2 != len(connection.call("HGETALL", key)):
                        return False
        return True

    def compare(self, name, wanted, port):
        found = differences(name, wanted, contents(Connection(port), DATABASES, with_lag=False))
        self.suite.note("%s: %d keys are the same" % (name, len(wanted)), found == 0)

    def loaded(self, place, wanted):
        with self.suite.copied(place) as copy:
            for name in ("a server here loads it", "it comes back with it"):
                with Server(self.suite.target + " --appendonly yes", directory=copy) as server:
                    server.wait_ready()
                    self.compare(name, wanted, server.port)
                    self.suite.note("no command has failed", "answered with an error" not in server.log_tail(), server.log_tail())
                    server.end(9)

    def imported(self, path, command, wanted):
        code, text, _ = self.suite.tool("check", path)
        self.suite.note("check finds it whole", code == 0, text.decode())
        with Server(command) as server:
            server.wait_ready()
            code, text, error = self.suite.tool("import", path, "--to", "127.0.0.1:%d" % server.port)
            self.suite.note("import", code == 0, (text + error).decode())
            self.compare("imported", wanted, server.port)

    def exported(self, place, wanted):
        """From the server to a file, and from there to another one and to a server here."""
        with tempfile.TemporaryDirectory() as files:
            file = os.path.join(files, "1.rdb")
            with self.suite.copied(place) as copy, Server(redis(self.binary) + LOG, directory=copy) as server:
                server.wait_ready()
                code, text, error = self.suite.tool("export", file, "--from", "127.0.0.1:%d" % server.port)
                self.suite.note("export", code == 0, (text + error).decode())
            for command in (redis(self.binary), self.suite.target):
                self.imported(file, command, wanted)
