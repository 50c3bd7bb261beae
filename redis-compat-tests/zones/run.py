#!/usr/bin/env python3
"""One of two zones is cut off: the side with most of the votes serves all slots, the other answers nothing.

  run.py                     each case once against target/release/starling
  run.py --rounds 5          each case five times, each time another node forms the cluster
  run.py --cases arbiter     one of them

zones     five nodes, two copies of every slot, three of the nodes in one zone and two in the other, which is cut off
arbiter   two nodes with slots in zones of their own, a copy of every slot, and an arbiter; one of the two is cut off from both others

Clients reach all nodes all the time. Writers send to each node of the side that is cut off, to slots of its own, as fast as
they are answered: the last acknowledgement may come a lease (0.6 s) after the cut. Others write to slots of both sides at
the side with the votes, until each has been acknowledged there. Then the links are back, all copies must be ready, no copy may
differ from its primary, and what the side with the votes has acknowledged must be there. Needs network namespaces; where they
cannot be had, this is said and nothing is tested.
"""
import argparse
import os
import signal
import statistics
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from failover.run import Cluster, primaries  # noqa: E402
from harness.process import COMMANDS  # noqa: E402
from harness.routing import slot_of  # noqa: E402
from harness.wire import Closed  # noqa: E402
from leases.nodes import enter_network  # noqa: E402

# name: (zone of each node, copies besides the primary, nodes that are cut off, which node is an arbiter)
CASES = {"zones": ("aaabb", 2, (3, 4), None), "arbiter": ("abc", 1, (1,), 2)}
PROBES = 60
LEASE_SECONDS = 0.6
# From a request that is sent within the lease to its reply.
ANSWER_SECONDS = 0.3
SERVED_SECONDS, PAUSE_SECONDS, BEFORE_SECONDS, AFTER_SECONDS = 30, 0.005, 1, 1


class Writer(threading.Thread):
    """Writes to slots of one node at that node. `last`: when the last acknowledgement came."""

    def __init__(self, node, keys):
        super().__init__(daemon=True)
        self.node, self.keys, self.last, self.is_over, self.refused = node, keys, 0, threading.Event(), set()

    def run(self):
        connection = None
        while not self.is_over.is_set():
            for key in self.keys:
                try:
                    connection = connection or self.node.connect(timeout=2)
                    reply = connection.call("SET", key, "cut off")
                except (Closed, OSError):
                    connection = None
                    continue
                if reply == b"OK":
                    self.last = time.monotonic()
                else:
                    self.refused.add(str(reply).split(" ", 1)[0])
                    self.is_over.wait(PAUSE_SECONDS)


class Round:
    def __init__(self, binary, case, number):
        zones, replicas, off, arbiter = CASES[case]
        # Another one forms the cluster, and so leads at first.
        order = [(at + number) % len(zones) for at in range(len(zones))]
        if arbiter is not None:
            order = [at for at in order if at != arbiter] + [arbiter]
        self.problems, self.off, self.arbiter = [], {order.index(at) for at in off}, arbiter is not None

        def extra(started):
            at = order[started - 1]
            return ("--zone", zones[at]) + (("--arbiter", "yes") if at == arbiter else ())

        self.cluster = Cluster(binary, len(zones), replicas, "async", extra, has_namespaces=True, arbiters=int(self.arbiter))

    def run(self):
        nodes = self.cluster.nodes
        cut = [nodes[at] for at in sorted(self.off)]
        others = [node for node in nodes if node not in cut]
        self.led = cut[0].info()["starling_raft_leader"] in [node.id for node in cut]
        owned = {node.port: set() for node in nodes}
        for first, last, port in primaries(nodes[0]):
            owned[port].update(range(first, last + 1))
        writers = [Writer(node, some_keys("own:%d" % node.number, owned[node.port], PROBES)) for node in cut]
        keys = [key for node in nodes for key in some_keys("probe:%d" % node.number, owned[node.port], PROBES)]
        for writer in writers:
            writer.start()
        time.sleep(BEFORE_SECONDS)
        self.block(cut, others, True)
        began = time.monotonic()
        self.served = self.write(others, keys, began)
        # Nothing is acknowledged late, either.
        time.sleep(AFTER_SECONDS)
        for writer in writers:
            writer.is_over.set()
            writer.join()
        self.refused = max(writer.last for writer in writers) - began
        if self.refused > LEASE_SECONDS + ANSWER_SECONDS:
            self.problems.append("a node that was cut off acknowledged a write %.2f s later" % self.refused)
        strange = set().union(*(writer.refused for writer in writers)) - {"MOVED", "CLUSTERDOWN", "TRYAGAIN", "INDOUBT"}
        if strange:
            self.problems.append("a node that was cut off answers %s" % ", ".join(sorted(strange)))
        self.block(cut, others, False)
        self.whole = self.cluster.wait_whole()
        self.look(others[0], keys)

    @staticmethod
    def block(cut, others, is_blocked):
        for one in cut:
            for other in others:
                one.block(other, is_blocked)
                other.block(one, is_blocked)

    @staticmethod
    def write(nodes, keys, began):
        """Seconds until each of them has been written at one of these nodes."""
        nodes = [node for node in nodes if node.info().get("cluster_known_nodes")]
        connections = {(node.host, node.port): node.connect(timeout=5) for node in nodes}
        addresses = list(connections)
        for key in keys:
            at, until = 0, time.monotonic() + SERVED_SECONDS
            address = addresses[0]
            while (reply := connections[address].call("SET", key, "served")) != b"OK":
                if time.monotonic() > until:
                    raise RuntimeError("nobody serves %s: %s" % (key, reply))
                where = str(reply).split()[2].rsplit(":", 1) if str(reply).startswith("MOVED") else None
                address = (where[0], int(where[1])) if where and (where[0], int(where[1])) in connections else None
                if address is None:
                    # The one that is cut off still counts as the owner.
                    time.sleep(PAUSE_SECONDS)
                    at += 1
                    address = addresses[at % len(addresses)]
        for connection in connections.values():
            connection.close()
        return time.monotonic() - began

    def look(self, _witness, keys):
        connections = {node.port: node.connect() for node in self.cluster.nodes}
        owners = primaries(self.cluster.nodes[0])
        for key in keys:
            port = next(port for first, last, port in owners if first <= slot_of(key) <= last)
            value = connections[port].call("GET", key)
            if value != b"served":
                self.problems.append("%s has %s: it was written at the side with the votes" % (key, value))
        for connection in connections.values():
            connection.close()
        if self.cluster.different():
            self.problems.append("%d copies differ from their primaries" % self.cluster.different())


def some_keys(prefix, slots, count):
    """Names whose slots are among these."""
    found, at = [], 0
    while slots and len(found) < count:
        key = "%s:%d" % (prefix, at)
        at += 1
        if slot_of(key) in slots:
            found.append(key)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not enter_network():
        print("zones: no network namespaces can be had here: nothing is cut")
        return 0
    failed, served = 0, []
    for case in options.cases.split(","):
        for number in range(options.rounds):
            one = Round(options.server, case, number)
            try:
                one.run()
                served.append(one.served)
                line = "all slots served after %.2f s; the last acknowledgement of who was cut off%s after %.2f s; whole %.1f s after the links" % (
                    one.served, " (the raft leader among them)" if one.led else "", one.refused, one.whole)
            except (RuntimeError, OSError, Closed) as error:
                one.problems.append("%s: %s" % (type(error).__name__, error))
                line = "not done"
            finally:
                one.cluster.close()
            failed += bool(one.problems)
            print("%-8s %s: %s" % (case, "FAIL" if one.problems else "good", line), flush=True)
            for problem in one.problems[:10]:
                print("    FAIL %s" % problem, flush=True)
    if served:
        print("zones: all slots served after %.2f s (median), %.2f s at most" % (statistics.median(served), max(served)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
