#!/usr/bin/env python3
"""kill -9 at random moments under load, and what comes back.

  run.py                       30 rounds with appendfsync always, 6 with everysec, against target/release/starling
  run.py --rounds 500          the long form
  run.py --seed 17             the same moments again (what the load has done by then differs)

Writers set, count, push and execute transactions over pipelines, each on keys of its own, while readers read them; the log
is made shorter all the time. After each kill the server is started again on what is there:

  always     every acknowledged write is there; so is every write that a reader has seen; nothing is there that was not
             sent; a list has its elements in order, each once; a transaction is there as a whole or not at all
  everysec   the same but for what was acknowledged in the last two seconds

A server that is stopped by SIGTERM must have everything, whatever appendfsync says.
"""
import argparse
import os
import random
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.process import COMMANDS, Server  # noqa: E402
from harness.wire import Closed, Connection, encode, parse, plain  # noqa: E402

WRITERS = 6
READERS = 2
PIPELINE = 8
# A list is cut from its front to about this length, so that it can be looked at after each round.
LIST_LENGTH = 400


class Writer(threading.Thread):
    """Writes ever greater numbers to keys of its own. `sent` and `acknowledged` are the greatest of each."""

    def __init__(self, number, port, start):
        super().__init__(daemon=True)
        self.number, self.port, self.sent, self.acknowledged = number, port, start, start
        self.history = []
        self.error = None

    def request(self, value):
        w, text = self.number, b"%d" % value
        out = [encode([b"SET", b"s:%d" % w, text]), encode([b"INCR", b"c:%d" % w]), encode([b"RPUSH", b"l:%d" % w, text])]
        # Two keys in different shards, and a command that undoes what it does.
        out += [encode([b"MULTI"]), encode([b"SET", b"t1:%d" % w, text]), encode([b"HSET", b"t2:%d" % w, b"f", text])]
        out += [encode([b"ZADD", b"t3:%d" % w, text, b"m"]), encode([b"EXEC"])]
        out += [encode([b"LTRIM", b"l:%d" % w, -LIST_LENGTH, -1])]
        return b"".join(out), 9

    def run(self):
        try:
            connection = Connection(self.port)
            while True:
                request, replies = b"", 0
                for _ in range(PIPELINE):
                    self.sent += 1
                    data, count = self.request(self.sent)
                    request += data
                    replies += count
                connection.send(request)
                for reply in connection.receive(replies):
                    if reply.startswith(b"-"):
                        self.error = reply
                        return
                self.acknowledged = self.sent
                self.history.append((time.monotonic(), self.acknowledged))
        except (Closed, OSError):
            pass


class Reader(threading.Thread):
    """Remembers the greatest number that it has seen of each writer."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seen = port, [0] * WRITERS

    def run(self):
        try:
            connection = Connection(self.port)
            while True:
                connection.send(b"".join(encode([b"GET", b"s:%d" % w]) for w in range(WRITERS)))
                for w, reply in enumerate(connection.receive(WRITERS)):
                    value = plain(parse(reply)[0])
                    if isinstance(value, bytes):
                        self.seen[w] = max(self.seen[w], int(value))
        except (Closed, OSError):
            pass


def integer(value):
    return int(value) if value is not None else 0


def look(port, w):
    """What the server has of a writer's keys."""
    connection = Connection(port)
    values = {
        "s": integer(connection.call("GET", "s:%d" % w)),
        "c": integer(connection.call("GET", "c:%d" % w)),
        "t1": integer(connection.call("GET", "t1:%d" % w)),
        "t2": integer(connection.call("HGET", "t2:%d" % w, "f")),
        "t3": integer(connection.call("ZSCORE", "t3:%d" % w, "m")),
        "l": [int(element) for element in connection.call("LRANGE", "l:%d" % w, 0, -1)],
    }
    connection.close()
    return values


def check(w, writer, values, lost_after, seen):
    """What is wrong. `lost_after`: all that was acknowledged up to then must be there."""
    wrong = []
    least = max((value for at, value in writer.history if at <= lost_after), default=writer.history[0][1])
    last = values["l"][-1] if values["l"] else 0
    for name, value in (("s", values["s"]), ("c", values["c"]), ("l", last), ("t", values["t1"])):
        # What readers see is the first of a writer's commands: the others may not have been executed by then.
        kept = max(least, seen) if name == "s" else least
        if value < kept:
            wrong.append("%s:%d has %d, and %d was kept" % (name, w, value, kept))
        if value > writer.sent:
            wrong.append("%s:%d has %d, and no more than %d was sent" % (name, w, value, writer.sent))
    if not values["t1"] == values["t2"] == values["t3"]:
        wrong.append("a transaction of %d is there in part: %s" % (w, values))
    if values["l"] != list(range(last - len(values["l"]) + 1, last + 1)):
        wrong.append("the list of %d has a hole or a double: ... %s" % (w, values["l"][-20:]))
    # One connection's commands are executed in order: what is there is a beginning of them.
    if not values["s"] >= values["c"] >= last >= values["t1"] >= values["s"] - 1:
        wrong.append("what is there of %d is no beginning of what it sent: s %d, c %d, l %d, t %d" % (
            w, values["s"], values["c"], last, values["t1"]))
    return wrong


def settle(port, w, value):
    """All keys of a writer go on from one number."""
    connection = Connection(port)
    connection.call("SET", "s:%d" % w, value)
    connection.call("SET", "c:%d" % w, value)
    connection.call("DEL", "l:%d" % w)
    connection.call("RPUSH", "l:%d" % w, value)
    for command in (("MULTI",), ("SET", "t1:%d" % w, value), ("HSET", "t2:%d" % w, "f", value), ("ZADD", "t3:%d" % w, value, "m"), ("EXEC",)):
        connection.call(*command)
    connection.close()


def rounds(binary, fsync, count, generator, end):
    """Runs so many rounds; returns what was wrong, and how many writes were acknowledged."""
    extra = ["--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--auto-aof-rewrite-min-size", "300kb"]
    wrong, total, ready = [], 0, []
    with Server(binary, extra) as server:
        server.wait_ready()
        for number in range(count):
            for w in range(WRITERS):
                settle(server.port, w, look(server.port, w)["s"] + 1)
            starts = [look(server.port, w)["s"] for w in range(WRITERS)]
            writers = [Writer(w, server.port, starts[w]) for w in range(WRITERS)]
            readers = [Reader(server.port) for _ in range(READERS)]
            now = time.monotonic()
            for writer in writers:
                # Settled before the load began: where a second may be lost, it is no part of the check.
                writer.history.append((now, writer.sent if fsync == "always" or end != signal.SIGKILL else 0))
            for thread in writers + readers:
                thread.start()
            time.sleep(generator.uniform(0.05, 0.5))
            moment = time.monotonic()
            server.send_signal(end)
            server.process.wait(30)
            for thread in writers + readers:
                thread.join(30)
            server.start()
            ready.append(server.wait_ready(probe=b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", good=(b"$-1",)))
            lost_after = float("inf") if fsync == "always" or end != signal.SIGKILL else moment - 2
            for w, writer in enumerate(writers):
                seen = max(reader.seen[w] for reader in readers) if lost_after == float("inf") else 0
                found = check(w, writer, look(server.port, w), lost_after, seen)
                if writer.error:
                    found.append("an error: %r" % writer.error)
                wrong += ["round %d, %s: %s" % (number, fsync, text) for text in found]
                total += writer.acknowledged - starts[w]
            if wrong:
                print(server.log_tail())
                break
        log = open(server.log_path).read()
    print("%-8s %-7s %4d rounds, %7d x 9 commands acknowledged, %3d rewritings, %2d torn tails, ready again in %.2f s at most" % (
        fsync, end.name, count, total, log.count("was made shorter"), log.count("torn tail"), max(ready)), flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="path of the binary")
    parser.add_argument("--rounds", type=int, default=30, help="rounds with appendfsync always")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print("seed %d" % seed)
    generator = random.Random(seed)
    binary = options.server + " --port {port} --dir {dir} --bind 127.0.0.1"
    few = max(options.rounds // 5, 3)
    wrong = rounds(binary, "always", options.rounds, generator, signal.SIGKILL)
    wrong += rounds(binary, "everysec", few, generator, signal.SIGKILL)
    for fsync in ("everysec", "no"):
        wrong += rounds(binary, fsync, 3, generator, signal.SIGTERM)
    for line in wrong:
        print("WRONG: %s" % line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
