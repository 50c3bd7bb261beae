#!/usr/bin/env python3
"""kill -9 at random moments under load, and what comes back.

  run.py                       30 rounds with appendfsync always, 6 with everysec, against target/release/starling
  run.py --rounds 500          the long form
  run.py --faults 500          only rounds with a disk that fails and forgets; 4 of them are part of the usual run
  run.py --cluster 20          rounds in which all three nodes of a cluster are killed at once (4 by default)
  run.py --seed 17             the same moments again (what the load has done by then differs)

Writers set, count, push and execute transactions over pipelines, each on keys of its own, while readers read them; the log
is made shorter all the time. After each kill the server is started again on what is there:

  always     every acknowledged write is there; so is every write that a reader has seen; nothing is there that was not
             sent; a list has its elements in order, each once; a transaction is there as a whole or not at all
  everysec   the same but for what was acknowledged in the last two seconds

A server that is stopped by SIGTERM must have everything, whatever appendfsync says. In a cluster requests go through a proxy
listener, and every slot must be served again with its keys. Rounds with a disk that fails: faults.py.
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
from harness.process import COMMANDS, Server, free_port  # noqa: E402
from harness.wire import Closed, Connection, encode  # noqa: E402
from crashes import load  # noqa: E402
from crashes.faults import fault_rounds  # noqa: E402
from crashes.load import PIPELINE, READERS, STEP_REPLIES, WRITERS, Reader, look, settle, step  # noqa: E402

# The rounds with a disk that fails that are part of the usual run.
FAULT_ROUNDS = 4


class Writer(threading.Thread):
    """Writes ever greater numbers to keys of its own. `sent` and `acknowledged` are the greatest of each."""

    def __init__(self, number, port, start):
        super().__init__(daemon=True)
        self.number, self.port, self.sent, self.acknowledged = number, port, start, start
        self.history = []
        self.error = None

    def run(self):
        try:
            connection = Connection(self.port)
            while True:
                request = b""
                for _ in range(PIPELINE):
                    self.sent += 1
                    request += step(self.number, self.sent)
                connection.send(request)
                for reply in connection.receive(PIPELINE * STEP_REPLIES):
                    if reply.startswith(b"-"):
                        self.error = reply
                        return
                self.acknowledged = self.sent
                self.history.append((time.monotonic(), self.acknowledged))
        except (Closed, OSError):
            pass


def check(w, writer, values, lost_after, seen):
    """What is wrong. `lost_after`: all that was acknowledged up to then must be there."""
    wrong = []
    least = max((value for at, value in writer.history if at <= lost_after), default=writer.history[0][1])
    last = values["l"][-1] if values["l"] else 0
    for name, value in (("s", values["s"]), ("c", values["c"]), ("l", last), ("t", values["t1"])):
        # What a reader has seen is the first that a writer writes.
        kept = max(least, seen) if name == "s" else least
        if value < kept:
            wrong.append("%s of %d has %d, and %d was kept" % (name, w, value, kept))
        if value > writer.sent:
            wrong.append("%s of %d has %d, and no more than %d was sent" % (name, w, value, writer.sent))
    if not values["t1"] == values["t2"] == values["t3"]:
        wrong.append("a transaction of %d is there in part: %s" % (w, values))
    if values["l"] != list(range(last - len(values["l"]) + 1, last + 1)):
        wrong.append("the list of %d has a hole or a double: ... %s" % (w, values["l"][-20:]))
    # One connection's commands are executed in order: what is there is a beginning of them.
    if not values["s"] >= values["c"] >= last >= values["t1"] >= values["s"] - 1:
        wrong.append("what is there of %d is no beginning of what it sent: s %d, c %d, l %d, t %d" % (
            w, values["s"], values["c"], last, values["t1"]))
    return wrong


def rounds(binary, fsync, count, generator, end, ports):
    """Runs so many rounds; returns what was wrong, and how many writes were acknowledged."""
    extra = ["--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--auto-aof-rewrite-min-size", "300kb"]
    wrong, total, ready = [], 0, []
    with Server(binary, extra, port=free_port(*ports)) as server:
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


class Cluster:
    """Three nodes with logs, of which the first has the port that is asked."""

    def __init__(self, binary, ports):
        self.nodes = []
        for number in range(3):
            proxy = free_port(*ports)
            extra = ["--cluster-enabled", "yes", "--proxy-port", str(proxy), "--appendonly", "yes", "--appendfsync", "always"]
            extra += ["--join", "127.0.0.1:%d" % self.nodes[0][0].port] if number else ["--cluster", "--probation", "0"]
            self.nodes.append((Server(binary, extra, port=free_port(*ports)), proxy))
        self.port = self.nodes[0][1]

    def until_served(self, keys, limit=60):
        """Seconds until all nodes serve all slots, with so many keys at least."""
        started = time.monotonic()
        while time.monotonic() - started < limit:
            try:
                for server, _ in self.nodes:
                    if not server.alive():
                        raise RuntimeError("a node has ended:\n%s" % server.log_tail())
                    info = Connection(server.port, 2).call("CLUSTER", "INFO")
                    if b"cluster_slots_ok:16384" not in info or b"cluster_known_nodes:3" not in info:
                        raise OSError("not yet")
                sizes = [Connection(server.port, 2).call("DBSIZE") for server, _ in self.nodes]
                if sum(sizes) >= keys and min(sizes) > (0 if keys else -1):
                    return time.monotonic() - started
            except (OSError, Closed, TypeError):
                pass
            time.sleep(0.02)
        raise RuntimeError("the cluster does not serve its keys: %s\n%s" % (sizes, self.nodes[0][0].log_tail()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server, _ in self.nodes:
            server.close()


def cluster_rounds(binary, count, generator, filler, ports):
    """Kills all nodes of a cluster at once, so many times."""
    load.in_one_slot = True
    wrong, total, served = [], 0, []
    with Cluster(binary, ports) as cluster:
        cluster.until_served(0)
        wait_balanced(cluster)
        fill(cluster.port, filler)
        for number in range(count):
            for w in range(WRITERS):
                settle(cluster.port, w, look(cluster.port, w)["s"] + 1)
            starts = [look(cluster.port, w)["s"] for w in range(WRITERS)]
            writers = [Writer(w, cluster.nodes[w % 3][1], starts[w]) for w in range(WRITERS)]
            readers = [Reader(cluster.nodes[1][1])]
            for writer in writers:
                writer.history.append((time.monotonic(), writer.sent))
            for thread in writers + readers:
                thread.start()
            time.sleep(generator.uniform(0.1, 0.8))
            for server, _ in cluster.nodes:
                server.send_signal(signal.SIGKILL)
            for server, _ in cluster.nodes:
                server.process.wait(30)
            for thread in writers + readers:
                thread.join(30)
            for server, _ in cluster.nodes:
                server.start()
            served.append(cluster.until_served(filler + WRITERS * 6))
            for w, writer in enumerate(writers):
                found = check(w, writer, look(cluster.port, w), float("inf"), max(reader.seen[w] for reader in readers))
                if writer.error and not writer.error.startswith((b"-CLUSTERDOWN", b"-TRYAGAIN", b"-INDOUBT", b"-EXECABORT", b"-ERR the link")):
                    found.append("an error: %r" % writer.error)
                wrong += ["round %d, cluster: %s" % (number, text) for text in found]
                total += writer.acknowledged - starts[w]
            if wrong:
                print(cluster.nodes[0][0].log_tail())
                break
    print("cluster  SIGKILL %4d rounds of three nodes, %d x 9 commands acknowledged, all slots served with their keys (%d) in %.2f s at most" % (
        count, total, filler, max(served)), flush=True)
    return wrong


def wait_balanced(cluster, limit=60):
    """Until every node has its third of the slots."""
    started = time.monotonic()
    while time.monotonic() - started < limit:
        slots = Connection(cluster.nodes[0][0].port).call("CLUSTER", "SLOTS")
        shares = {}
        for entry in slots:
            shares[entry[2][1]] = shares.get(entry[2][1], 0) + entry[1] - entry[0] + 1
        if len(shares) == 3 and min(shares.values()) > 5000:
            return
        time.sleep(0.05)
    raise RuntimeError("the slots are not spread: %s" % shares)


def fill(port, count):
    """So many keys of 64 bytes."""
    connection = Connection(port)
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        connection.send(b"".join(encode([b"SET", b"filler:%d" % number, b"x" * 64]) for number in numbers))
        connection.receive(len(numbers))
    connection.close()


def port_range(text):
    low, high = map(int, text.split("-"))
    return low, high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="path of the binary")
    parser.add_argument("--rounds", type=int, default=30, help="rounds with appendfsync always")
    parser.add_argument("--cluster", type=int, default=4, help="rounds with a cluster of three nodes")
    parser.add_argument("--keys", type=int, default=20000, help="keys of that cluster besides those of the load")
    parser.add_argument("--faults", type=int, nargs="?", const=30, help="only rounds with a disk that fails, so many (30)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--ports", type=port_range, default=(11000, 45000), help="LOW-HIGH: client ports; 10000 more are used too")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print("seed %d" % seed)
    generator = random.Random(seed)
    binary = options.server + " --port {port} --dir {dir} --bind 127.0.0.1"
    ports = (10000,) + options.ports
    if options.faults is None:
        few = max(options.rounds // 5, 3)
        wrong = rounds(binary, "always", options.rounds, generator, signal.SIGKILL, ports)
        wrong += rounds(binary, "everysec", few, generator, signal.SIGKILL, ports)
        for fsync in ("everysec", "no"):
            wrong += rounds(binary, fsync, 3, generator, signal.SIGTERM, ports)
        wrong += fault_rounds(binary, FAULT_ROUNDS, generator, ports)
        if options.cluster:
            wrong += cluster_rounds(binary, options.cluster, generator, options.keys, ports)
    else:
        wrong = fault_rounds(binary, options.faults, generator, ports)
    for line in wrong:
        print("WRONG: %s" % line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
