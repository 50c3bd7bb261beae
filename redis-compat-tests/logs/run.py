#!/usr/bin/env python3
"""Redis's logs: loaded by a server here, explained and repaired by `starling check`, printed by `starling dump`.

  run.py                                    against target/release/starling
  run.py --target "BINARY --port {port} --dir {dir}"
  run.py --peer BINARY                      logs of another server too, of Redis 8 or Valkey, with commands that those have; the
                                            environment variable COMPAT_PEERS names some, with colons between them

redis-server writes a log (multi-part, with and without a snapshot as its base; or one file, as before 7.0). What is compared
is the DEBUG DIGEST of redis-servers: one that wrote it, one that was fed what `starling dump` prints, and one that
loads what a server here saves after it has loaded the log. Of other servers' logs it is what commands answer about the keys.
"""
import argparse
import contextlib
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]
from harness.process import Server, command_line, named_peers  # noqa: E402
from harness.wire import Connection  # noqa: E402
from peers import Peer  # noqa: E402

REDIS = "redis-server --port {port} --dir {dir} --bind 127.0.0.1 --save '' --enable-debug-command yes"
LOG = " --appendonly yes --appendfsync always --aof-timestamp-enabled yes"


def commands(seed, count):
    """Commands of every type in two databases; some in transactions, some keys with a deadline."""
    chance = random.Random(seed)

    def word():
        kind = chance.randrange(4)
        if kind == 0:
            return b"%d" % chance.randrange(-1000, 100000)
        if kind == 1:
            return bytes(chance.randrange(256) for _ in range(chance.randrange(40)))
        return b"word%d" % chance.randrange(1000) * chance.randrange(1, 20)

    def one():
        key = b"%d" % chance.randrange(20)
        return chance.choice([
            [b"SET", b"string" + key, word()],
            [b"SET", b"string" + key, word(), b"EX", b"100000"],
            [b"SET", b"short" + key, word(), b"PX", b"1"],
            [b"APPEND", b"string" + key, word()],
            [b"INCRBY", b"number" + key, b"7"],
            [b"RPUSH", b"list" + key, word(), word(), word()],
            [b"LPOP", b"list" + key],
            [b"SADD", b"set" + key, word(), b"%d" % chance.randrange(9)],
            [b"SADD", b"integers" + key, b"%d" % chance.randrange(900)],
            [b"SPOP", b"set" + key],
            [b"ZADD", b"sorted" + key, b"%r" % (chance.random() * 100), word()],
            [b"ZREMRANGEBYRANK", b"sorted" + key, b"0", b"0"],
            [b"HSET", b"hash" + key, word(), word(), b"f%d" % chance.randrange(9), word()],
            [b"HDEL", b"hash" + key, b"f%d" % chance.randrange(9)],
            [b"XADD", b"stream" + key, b"*", b"f", word()],
            [b"XTRIM", b"stream" + key, b"MAXLEN", b"3"],
            [b"XGROUP", b"CREATE", b"stream" + key, b"g", b"0"],
            [b"XREADGROUP", b"GROUP", b"g", b"me", b"COUNT", b"1", b"STREAMS", b"stream" + key, b">"],
            [b"DEL", b"list" + key, b"set" + key],
            [b"RENAME", b"string" + key, b"string0"],
            [b"PEXPIRE", b"hash" + key, b"10000000"],
            [b"SORT", b"integers" + key, b"STORE", b"sorted-list" + key],
            [b"SELECT", b"%d" % chance.randrange(2)],
        ])

    for _ in range(count):
        if chance.randrange(10):
            yield one()
        else:
            yield [b"MULTI"]
            for _ in range(chance.randrange(1, 4)):
                yield one()
            yield [b"EXEC"]


class Suite:
    def __init__(self, options):
        self.target = command_line(options.target)
        self.binary = shlex.split(self.target)[0]
        self.options = options
        self.failures = 0

    def note(self, name, is_good, text=""):
        print("  %-60s %s" % (name, "ok" if is_good else "FAILED " + text), flush=True)
        self.failures += not is_good

    def tool(self, *words, feed=None):
        done = subprocess.run([self.binary, *words], input=feed, capture_output=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    def digest(self, port):
        """When what has expired is gone."""
        connection = Connection(port)
        for database in (b"0", b"1"):
            connection.call(b"SELECT", database)
            until = time.monotonic() + 30
            while len(connection.call(b"KEYS", b"*")) != connection.call(b"DBSIZE"):
                assert time.monotonic() < until, "keys do not expire"
        return connection.call(b"DEBUG", b"DIGEST")

    def fill(self, connection, sequence):
        """Sends commands; in the middle of them the log is rewritten."""
        is_rewritten = False
        for number, words in enumerate(sequence):
            connection.call(*words)
            if not is_rewritten and number >= self.options.commands // 2 and words == [b"EXEC"]:
                is_rewritten = True
                connection.call(b"BGREWRITEAOF")
                until = time.monotonic() + 30
                while b"aof_rewrite_in_progress:0" not in connection.call(b"INFO", b"persistence"):
                    assert time.monotonic() < until, "the log is not rewritten"

    def written(self, directory, extra):
        """A log of redis-server in the directory; its digest."""
        with Server(REDIS + LOG + extra, directory=directory) as server:
            server.wait_ready()
            self.fill(Connection(server.port), self.commands())
            digest = self.digest(server.port)
            server.end()
        return digest

    def loaded_by_redis(self, directory, extra=LOG):
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(directory, place, dirs_exist_ok=True)
            with Server(REDIS + extra, directory=place) as server:
                server.wait_ready()
                return self.digest(server.port)

    def loaded_here(self, directory, lives=2, extra=""):
        """The digest of what a server here has loaded from a copy, in its first life and after it was killed."""
        digests = []
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(directory, place, dirs_exist_ok=True)
            before = self.files(place)
            for _ in range(lives):
                with Server(self.target + " --appendonly yes" + extra, directory=place) as server:
                    server.wait_ready()
                    connection = Connection(server.port)
                    answer = connection.call(b"SAVE")
                    assert answer == b"OK", answer
                    with tempfile.TemporaryDirectory() as saved:
                        shutil.copy(os.path.join(place, "dump.rdb"), saved)
                        digests.append(self.loaded_by_redis(saved, ""))
                    os.remove(os.path.join(place, "dump.rdb"))
                    server.end(9)
            after = self.files(place)
            self.note("Redis's files are as they were", all(after.get(name) == text for name, text in before.items()))
        return digests

    def files(self, directory):
        found = {}
        for folder, _, names in os.walk(directory):
            for name in names:
                if ".aof" in name and not name.endswith((".segment", ".segments")) and ".before-fix" not in name:
                    with open(os.path.join(folder, name), "rb") as file:
                        found[os.path.join(folder, name)] = file.read()
        return found

    def printed(self, path):
        """The digest of a redis-server that was fed what is printed."""
        code, text, error = self.tool("dump", path)
        if code:
            return error
        with Server(REDIS) as server:
            server.wait_ready()
            subprocess.run(["redis-cli", "-p", str(server.port)], input=text, stdout=subprocess.DEVNULL, timeout=120)
            return self.digest(server.port)

    def log(self, name, extra):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as place:
            wanted = self.written(place, extra)
            directory = os.path.join(place, "appendonlydir")
            self.note("redis-server loads it", self.loaded_by_redis(place) == wanted)
            code, text, _ = self.tool("check", directory)
            self.note("check finds it whole", code == 0, text.decode())
            self.note("dump prints what redis-cli makes again", self.printed(directory) == wanted)
            got = self.loaded_here(place)
            self.note("a server here loads it, and comes back with it", got == [wanted, wanted], repr(got))
            self.carried(place, directory, wanted)
            self.single(directory, wanted)
            self.torn(place, directory)

    def carried(self, place, directory, wanted):
        """From redis-server to a file, to a server here, to a file, and to redis-server; and the log itself."""
        with tempfile.TemporaryDirectory() as copy, tempfile.TemporaryDirectory() as files:
            shutil.copytree(place, copy, dirs_exist_ok=True)
            first, second = os.path.join(files, "1.rdb"), os.path.join(files, "2.rdb")
            with Server(REDIS + LOG, directory=copy) as source, Server(self.target) as here, Server(REDIS) as target:
                for server in (source, here, target):
                    server.wait_ready()
                address = {server: "127.0.0.1:%d" % server.port for server in (source, here, target)}
                for words in (("export", first, "--from", address[source]), ("check", first),
                              ("import", first, "--to", address[here]), ("export", second, "--from", address[here]),
                              ("import", second, "--to", address[target])):
                    code, text, error = self.tool(*words)
                    self.note(" ".join(words[:1] + words[2:3]), code == 0, (text + error).decode())
                self.note("the keys are the same", self.digest(target.port) == wanted)
                code, _, error = self.tool("import", second, "--to", address[target])
                self.note("keys that are there are named, and stay", code == 1 and b"BUSYKEY" in error, error.decode())
                code, text, error = self.tool("import", directory, "--to", address[target], "--replace")
                self.note("a log replaces them", code == 0, (text + error).decode())
                self.note("the keys are the same", self.digest(target.port) == wanted)

    def parts(self, directory):
        names = sorted(os.listdir(directory), key=lambda name: (".incr." in name, name))
        return [os.path.join(directory, name) for name in names if not name.endswith(".manifest")]

    def single(self, directory, wanted):
        """The same as one file, as Redis before 7.0 wrote it."""
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "appendonly.aof")
            with open(path, "wb") as whole:
                for part in self.parts(directory):
                    with open(part, "rb") as file:
                        whole.write(file.read())
            code, text, _ = self.tool("check", path)
            self.note("check finds one file whole", code == 0, text.decode())
            self.note("dump prints one file", self.printed(path) == wanted)
            got = self.loaded_here(place, 1)
            self.note("a server here loads one file", got == [wanted], repr(got))

    def torn(self, place, directory):
        last = self.parts(directory)[-1]
        with open(last, "rb") as file:
            whole = file.read()
        # The last is torn for certain: it ends within a command.
        for cut in (400, 40, 1):
            with open(last, "wb") as file:
                file.write(whole[:-cut])
            wanted = self.loaded_by_redis(place)
            got = self.loaded_here(place, 1)
            self.note("%d bytes less: loaded as redis-server does" % cut, got == [wanted], repr(got))
        server = Server(self.target + " --appendonly yes --aof-load-truncated no", directory=self.copy(place))
        try:
            server.process.wait(30)
            self.note("aof-load-truncated no: it does not start", server.process.returncode != 0 and "byte" in server.log_tail())
        finally:
            server.close()
            shutil.rmtree(server.directory)
        code, text, _ = self.tool("check", directory)
        self.note("check finds it torn", code == 1 and b"--fix keeps" in text, text.decode())
        code, text, _ = self.tool("check", "--fix", directory, feed=b"n\n")
        self.note("who says no keeps it", code == 1 and not os.path.exists(last + ".before-fix"))
        code, text, _ = self.tool("check", "--fix", "--yes", directory)
        self.note("who says yes has it repaired", code == 0, text.decode())
        with open(last + ".before-fix", "rb") as file:
            self.note("the file as it was is kept", file.read() == whole[:-1])
        os.remove(last + ".before-fix")
        manifest = [name for name in os.listdir(directory) if name.endswith(".manifest")][0]
        checked = subprocess.run(["redis-check-aof", os.path.join(directory, manifest)], capture_output=True, timeout=60)
        self.note("redis-check-aof agrees", checked.returncode == 0, checked.stdout.decode())
        for damage in (b"*1\r\n$4\r\nNOPE\r\n", b"junk"):
            with open(last, "wb") as file:
                file.write(whole + damage)
            server = Server(self.target + " --appendonly yes", directory=self.copy(place))
            try:
                server.process.wait(30)
                named = "at byte %d" % len(whole) in server.log_tail()
                self.note("%r behind it: it does not start, and says where" % damage[-6:], named, server.log_tail())
            finally:
                server.close()
                shutil.rmtree(server.directory)

    def commands(self):
        return commands(self.options.seed, self.options.commands)

    @contextlib.contextmanager
    def copied(self, directory):
        place = self.copy(directory)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def copy(self, directory):
        place = tempfile.mkdtemp(prefix="compat-")
        shutil.copytree(directory, place, dirs_exist_ok=True)
        return place


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="starling", help="command line with {port} and {dir}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", type=int, default=3000)
    parser.add_argument("--peer", action="append", default=named_peers(), help="the binary of another server; may be repeated")
    options = parser.parse_args()
    if not options.peer:
        print("skipped: logs of other servers than redis-server (--peer and COMPAT_PEERS name some)")
    suite = Suite(options)
    suite.log("a snapshot, and commands behind it", "")
    suite.log("commands only", " --aof-use-rdb-preamble no")
    for peer in options.peer:
        Peer(suite, peer).check()
    print("%d failures" % suite.failures)
    return 1 if suite.failures else 0


if __name__ == "__main__":
    sys.exit(main())
