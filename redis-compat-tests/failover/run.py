#!/usr/bin/env python3
"""kill -9 of a node under load, in a cluster whose slots have copies: who takes over, how soon, and what is there then.

  run.py                       three rounds against target/release/starling, three nodes, two copies of every slot
  run.py --rounds 50           the long form
  run.py --nodes 5 --seed 7    another cluster, the same choices again
  run.py --acknowledge quorum  replies wait for a copy: no acknowledged write may be lost, none that was read either
  run.py --logs                nodes keep logs, and what they tell of lost writes is compared with what is missing
  run.py --faults kill,stop    some nodes are stopped for three seconds instead (SIGSTOP), and go on

Each round: writers set ever greater numbers on keys of their own over all slots; a node is killed, any of them; the time is
taken until a write to each of some forty of its slots has been acknowledged; then the load ends, and

  settled   every key that was written a second before the kill or earlier has its value, or a later one of its writer
  behind    acknowledged writes that nobody has (with asynchronous acknowledgement): counted; with quorum there may be none
  read      values that were read and are gone: the same
  told      what all nodes say of lost writes (starling_writes_lost) once the node is back with what it had; printed, not judged: more
            than are missing where keys have been written again since, fewer where slots were elected twice meanwhile
  whole     the node starts again, empty but with --logs; all copies are ready, roles are shared evenly, no copy differs from its primary

The only errors may be MOVED, CLUSTERDOWN, TRYAGAIN, NOREPLICAS, INDOUBT and connections that are closed. The seed decides who is killed and
when, not what the machine does with it.
"""
import argparse
import os
import random
import signal
import statistics
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.process import COMMANDS, free_port  # noqa: E402
from harness.routing import GaveUp, slot_of  # noqa: E402
from harness.wire import Closed, Connection  # noqa: E402
from leases.nodes import SLOTS, Node, shares, wait_for  # noqa: E402

WRITERS, KEYS_PER_WRITER = 4, 300
PROBES = 40
# Load before the kill, and after all slots are served again.
BEFORE_SECONDS, AFTER_SECONDS = 1.5, 0.7
SERVED_SECONDS, REQUEST_SECONDS = 30, 30
PAUSE_SECONDS = 0.005
PASSING = ("MOVED", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS")
STOPPED_SECONDS = 3
# What a killed node has acknowledged is in its log.
LOGS = ("--appendonly", "yes", "--appendfsync", "always")


class Client:
    """Sends a request to whoever owns its slot, as often as it takes, or until it `is_over`. One thread uses one client."""

    def __init__(self, ports):
        self.ports, self.connections, self.owners, self.at = list(ports), {}, {}, 0
        self.seen, self.is_over = set(), False

    def call(self, key, *request, limit=REQUEST_SECONDS):
        """The reply; None where it may have been executed and nobody knows."""
        slot, until = slot_of(key), time.monotonic() + limit
        port = self.owners.get(slot, self.ports[0])
        while time.monotonic() < until and not self.is_over:
            try:
                if port not in self.connections:
                    self.connections[port] = Connection(port, timeout=3)
                reply = self.connections[port].call(*request)
            except (Closed, OSError):
                self.connections.pop(port, None)
                self.at += 1
                port = self.ports[self.at % len(self.ports)]
                time.sleep(PAUSE_SECONDS)
                continue
            if not isinstance(reply, Exception):
                self.owners[slot] = port
                return reply
            word = str(reply).split(" ", 1)[0]
            self.seen.add(word)
            if word == "INDOUBT":
                return None
            if word not in PASSING:
                raise RuntimeError("%s is answered %s" % (request, reply))
            if word == "MOVED":
                port = int(str(reply).rsplit(":", 1)[1])
            else:
                time.sleep(PAUSE_SECONDS)
                self.at += 1
                port = self.ports[self.at % len(self.ports)]
        raise GaveUp("%s had no answer for %d s" % (request, limit))

    def close(self):
        for connection in self.connections.values():
            connection.close()


class Writer(threading.Thread):
    """Sets ever greater numbers on keys of its own, `pause` seconds apart. `history`: by key the acknowledged numbers, and when."""

    def __init__(self, number, ports, first, pause=0):
        super().__init__(daemon=True)
        self.pause = pause
        self.keys = ["w%d:%d" % (number, at) for at in range(KEYS_PER_WRITER)]
        self.client, self.next, self.is_over, self.error = Client(ports), first, False, None
        self.history = {key: [] for key in self.keys}
        self.written = 0

    def run(self):
        try:
            while not self.is_over:
                for key in self.keys:
                    self.next += 1
                    if self.client.call(key, "SET", key, str(self.next)) == b"OK":
                        self.history[key].append((time.monotonic(), self.next))
                        self.written += 1
                    if self.is_over:
                        break
                    time.sleep(self.pause)
        except (RuntimeError, GaveUp) as error:
            # Whoever ends the client does not want to know.
            self.error = None if self.client.is_over else error
        finally:
            self.client.close()


class Reader(threading.Thread):
    """Reads keys of the writers. `history`: by key the greatest number that was read."""

    def __init__(self, writers, ports, seed):
        super().__init__(daemon=True)
        self.keys = [key for writer in writers for key in writer.keys]
        self.client, self.random, self.is_over, self.error, self.history = Client(ports), random.Random(seed), False, None, {}

    def run(self):
        try:
            while not self.is_over:
                key = self.random.choice(self.keys)
                value = self.client.call(key, "GET", key)
                self.history[key] = max(self.history.get(key, 0), int(value or 0))
        except (RuntimeError, GaveUp) as error:
            self.error = error
        finally:
            self.client.close()


class Cluster:
    """Nodes of which every slot is on `replicas` + 1, and that may be killed as often as one likes. All are started with `extra(number)` too, which makes
    so many of them arbiters; `ports`: LOW, HIGH."""

    def __init__(self, binary, count, replicas, acknowledge, extra=lambda _number: (), ports=(11000, 45000), has_namespaces=False, arbiters=0):
        self.arbiters, self.nodes = arbiters, []
        self.replicas = min(replicas, count - arbiters - 1)
        try:
            for number in range(1, count + 1):
                how = ("--join", self.nodes[0].address) if self.nodes else (
                    "--cluster", "--replicas", str(replicas), "--acknowledge", acknowledge, "--probation", "0")
                self.nodes.append(Node(binary, number, has_namespaces, *how, *extra(number), port=free_port(10000, *ports)))
            self.wait_whole()
        except BaseException:
            self.close()
            raise

    def close(self):
        for node in self.nodes:
            node.close()

    def is_whole(self):
        """Whether all copies are ready, roles are shared evenly, and all see the same."""
        count = len(self.nodes) - self.arbiters
        each = SLOTS / count
        for node in self.nodes:
            info = node.info()
            if int(info["starling_copies_ready"]) != SLOTS * self.replicas or info["cluster_slots_ok"] != str(SLOTS):
                return False
            owned = shares(primaries(node))
            if len(owned) != count or any(abs(slots - each) > 0.01 * each for slots in owned.values()):
                return False
            if len(node.flags()) != len(self.nodes) or any("fail" in marks for marks in node.flags().values()):
                return False
        return True

    def wait_whole(self):
        return wait_for(self.is_whole, "all copies to be ready", self.nodes, 120)

    def different(self):
        """Copies that were found to differ from their primaries, by all nodes."""
        return sum(int(node.info()["starling_copies_different"]) for node in self.nodes)


def primaries(node):
    """[(first slot, last slot, port)]."""
    reply = node.call("CLUSTER", "NODES").decode()
    found = []
    for row in (row.split() for row in reply.splitlines() if row):
        port = int(row[1].split("@")[0].rsplit(":", 1)[1])
        for part in row[8:]:
            first, _, last = part.partition("-")
            found.append((int(first), int(last or first), port))
    return sorted(found)


class Round:
    """One kill."""

    def __init__(self, suite, number):
        self.quorum = suite.quorum
        self.cluster, self.random = suite.cluster, random.Random("%d/%d" % (suite.seed, number))
        self.victim = self.random.choice(self.cluster.nodes)
        self.fault = self.random.choice(suite.faults)
        self.others = [node for node in self.cluster.nodes if node is not self.victim]
        self.ports = [node.port for node in self.cluster.nodes]
        self.first = (number + 1) * 10_000_000
        self.problems = []
        self.knows = suite.logs or self.fault == "stop"
        self.leads = self.victim.info().get("starling_raft_leader") == self.victim.id

    def run(self):
        told_before = self.told()
        owned = [(first, last) for first, last, port in primaries(self.victim) if port == self.victim.port]
        writers = [Writer(number, self.ports, self.first) for number in range(WRITERS)]
        reader = Reader(writers, self.ports, self.random.random())
        for thread in writers + [reader]:
            thread.start()
        time.sleep(BEFORE_SECONDS + self.random.random())
        self.victim.server.send_signal(signal.SIGKILL if self.fault == "kill" else signal.SIGSTOP)
        killed = time.monotonic()
        self.served = self.probe(owned, killed)
        time.sleep(AFTER_SECONDS)
        if self.fault == "stop":
            time.sleep(max(0, killed + STOPPED_SECONDS - time.monotonic()))
            self.victim.server.send_signal(signal.SIGCONT)
            # What waited in it is answered while all go on.
            time.sleep(AFTER_SECONDS)
        for thread in writers + [reader]:
            thread.is_over = True
        for thread in writers + [reader]:
            thread.join(REQUEST_SECONDS + 10)
            if thread.error or thread.is_alive():
                self.problems.append("%s: %s" % (type(thread).__name__, thread.error or "it has not ended"))
        self.look(writers, reader, killed)
        if self.fault == "kill":
            self.victim.server.end()
            self.victim.server.start()
            self.victim.server.wait_ready()
        self.whole = self.cluster.wait_whole()
        self.lost = sum(self.told().values()) - sum(told_before.values())
        if self.fault == "kill":
            # Its counter begins anew.
            self.lost += told_before[self.victim.number]
        if self.cluster.different():
            self.problems.append("%d copies differ from their primaries" % self.cluster.different())

    def told(self):
        """By node, how many lost writes it tells of."""
        return {node.number: int(node.info()["starling_writes_lost"]) for node in self.cluster.nodes}

    def probe(self, owned, killed):
        """Seconds from the kill until a write to each of some slots of the node has been acknowledged."""
        slots = [slot for first, last in owned for slot in range(first, last + 1)]
        wanted = set(self.random.sample(slots, min(PROBES, len(slots))))
        keys, at = [], 0
        while wanted:
            key = "probe:%d" % at
            at += 1
            if slot_of(key) in wanted:
                wanted.remove(slot_of(key))
                keys.append(key)
        client = Client([node.port for node in self.others])
        for key in keys:
            while client.call(key, "SET", key, "x", limit=SERVED_SECONDS) != b"OK":
                pass
        client.close()
        return time.monotonic() - killed

    def look(self, writers, reader, killed):
        """Counts what is missing."""
        self.behind, self.unread = 0, 0
        client = Client([node.port for node in self.others])
        for writer in writers:
            for key, history in writer.history.items():
                value = int(client.call(key, "GET", key) or 0)
                lost = [number for _, number in history if number > value]
                settled = [number for at, number in history if at < killed - 1]
                self.behind += len(lost)
                self.unread += reader.history.get(key, 0) > value
                if self.quorum and (lost or reader.history.get(key, 0) > value):
                    self.problems.append("%s has %d; acknowledged: %s, read: %s" % (key, value, lost, reader.history.get(key)))
                if settled and value < settled[-1]:
                    self.problems.append("%s has %d, and %d was written a second before the kill" % (key, value, settled[-1]))
                if value > writer.next:
                    self.problems.append("%s has %d, which was never sent" % (key, value))
        client.close()
        self.written = sum(writer.written for writer in writers)


class Suite:
    def __init__(self, options):
        self.logs = options.logs
        self.seed, self.quorum, self.faults = options.seed, options.acknowledge == "quorum", options.faults.split(",")
        self.cluster = Cluster(options.server, options.nodes, options.replicas, options.acknowledge, lambda _number: LOGS if self.logs else ())
        self.served, self.led, self.behind, self.written, self.failed = [], [], 0, 0, 0

    def round(self, number):
        one = Round(self, number)
        try:
            one.run()
            (self.led if one.leads else self.served).append(one.served)
            self.behind += one.behind
            self.written += one.written
            line = "%s, served again after %.2f s, %d of %d acknowledged writes lost, %s told, %d keys read before, whole after %.1f s" % (
                one.fault, one.served, one.behind, one.written, one.lost if one.knows else "none", one.unread, one.whole)
        except (RuntimeError, GaveUp, OSError, Closed) as error:
            one.problems.append("%s: %s" % (type(error).__name__, error))
            line = "not done"
        self.failed += bool(one.problems)
        print("%2d: %s: node %d%s, %s" % (
            number + 1, "FAIL" if one.problems else "good", one.victim.number, " (raft leader)" if one.leads else "", line), flush=True)
        for problem in one.problems[:10]:
            print("    FAIL %s" % problem, flush=True)
        return not one.problems

    def report(self):
        for what, seconds in (("other nodes", self.served), ("raft leaders", self.led)):
            if seconds:
                print("%s: served again after %.2f s (median of %d), %.2f s at most" % (
                    what, statistics.median(seconds), len(seconds), max(seconds)))
        print("%d of %d acknowledged writes lost" % (self.behind, self.written))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--acknowledge", default="async", choices=("async", "quorum"))
    parser.add_argument("--faults", default="kill", help="kill and stop, separated by a comma: one of them in each round")
    parser.add_argument("--logs", action="store_true", help="nodes keep logs (appendfsync always)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    print("seed %d, %d nodes" % (options.seed, options.nodes), flush=True)
    suite = Suite(options)
    try:
        good = all([suite.round(number) for number in range(options.rounds)])
        suite.report()
    finally:
        suite.cluster.close()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
