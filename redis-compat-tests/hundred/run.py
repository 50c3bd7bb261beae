#!/usr/bin/env python3
"""A hundred nodes on one machine: how soon they are a cluster, what they send at rest, what they take, and how soon one is replaced.

  run.py                  100 nodes of target/release/starling
  run.py --nodes 30       fewer

formed     seconds from the first start until every node sees all of them, and all slots with all copies; until each leads its share
at rest    bytes per second and node: gossip as the nodes count it (UDP payload), and all else that goes over the loopback device of
           a network of this program's own (links and heartbeats, with headers), each counted once, as sent
memory     resident bytes of a node, without those of a node that is alone
killed     a node, kill -9: seconds until a write to each of its slots that are tried is acknowledged, and until all copies are ready

Fails where a goal is missed by far: forming, or serving the slots of a node that was killed. Needs a network of its own for the
bytes; without one they are not counted.
"""
import argparse
import os
import signal
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from failover.run import Client, primaries  # noqa: E402
from harness.process import COMMANDS, Server, starling  # noqa: E402
from harness.routing import slot_of  # noqa: E402
from harness.wire import Connection  # noqa: E402
from leases.nodes import enter_network  # noqa: E402

SLOTS, REPLICAS = 16384, 2
FIRST_PORT = 11000
FORMED_SECONDS, SETTLED_SECONDS, WHOLE_SECONDS, SERVED_SECONDS, REST_SECONDS = 240, 900, 180, 30, 20
PROBES = 60
MEGABYTE = 1 << 20


class Node:
    def __init__(self, binary, number):
        self.port = FIRST_PORT + number
        how = ("--join", "127.0.0.1:%d" % FIRST_PORT) if number else ("--cluster",)
        self.server = Server(starling(binary), ("--threads", "1") + how, port=self.port)

    def call(self, *arguments):
        connection = Connection(self.port)
        try:
            return connection.call(*arguments)
        finally:
            connection.close()

    def info(self):
        return dict(line.split(":", 1) for line in self.call("CLUSTER", "INFO").decode().splitlines() if ":" in line)


def until(condition, limit, what):
    """Seconds until it holds."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        try:
            if condition():
                return time.monotonic() - began
        except Exception:  # a node that does not answer yet
            pass
        time.sleep(0.1)
    raise RuntimeError("waited in vain for " + what)


def is_whole(nodes, count):
    """Whether all of them see so many members, and all slots with all their copies. The last to know are mostly the last. Copies of the
    smaller clusters on the way may still be leaving."""
    return all(
        (info := node.info())["cluster_known_nodes"] == str(count) and info["cluster_slots_ok"] == str(SLOTS)
        and info["starling_copies_missing"] == "0" and info["starling_slots_electing"] == "0" for node in reversed(nodes))


def is_settled(nodes):
    """Whether nothing is left to do: no copy too many, and every node leads its share."""
    info, owned = nodes[0].info(), {}
    for first, last, port in primaries(nodes[0]):
        owned[port] = owned.get(port, 0) + last - first + 1
    each = SLOTS / len(nodes)
    return info["starling_copies_ready"] == str(SLOTS * REPLICAS) and len(owned) == len(nodes) and all(abs(slots - each) <= 2 for slots in owned.values())


def loopback_bytes():
    with open("/proc/net/dev") as devices:
        return next(int(line.split()[9]) for line in devices if line.strip().startswith("lo:"))


def at_rest(nodes):
    def gossip():
        return sum(int(node.info()["starling_gossip_bytes_sent"]) for node in nodes)

    # Asking is traffic too: it is before and after what is counted.
    first, began = gossip(), time.monotonic()
    total = loopback_bytes()
    time.sleep(REST_SECONDS)
    total = loopback_bytes() - total
    rest = time.monotonic() - began
    return (gossip() - first) / (time.monotonic() - began) / len(nodes), total / rest / len(nodes)


def probe_keys(slots):
    found, at = [], 0
    while slots and len(found) < PROBES:
        key = "probe:%d" % at
        at += 1
        if slot_of(key) in slots:
            found.append(key)
            slots.discard(slot_of(key))
    return found


def killed(nodes):
    # Neither the first nor a voter by habit: whom it is, is told.
    victim = nodes[len(nodes) // 2]
    led = victim.info()["starling_raft_leader"] == victim.call("CLUSTER", "MYID").decode()
    slots = {slot for first, last, port in primaries(victim) if port == victim.port for slot in range(first, last + 1)}
    count, keys = len(slots), probe_keys(slots)
    others = [node for node in nodes if node is not victim]
    client = Client([node.port for node in others[:5]])
    victim.server.send_signal(signal.SIGKILL)
    began = time.monotonic()
    for key in keys:
        while client.call(key, "SET", key, "x", limit=SERVED_SECONDS) != b"OK":
            pass
    served = time.monotonic() - began
    client.close()
    victim.server.process.wait()
    victim.server.start()
    victim.server.wait_ready()
    whole = until(lambda: is_whole(nodes, len(nodes)), WHOLE_SECONDS, "all copies after a restart")
    return count, led, served, whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0])
    parser.add_argument("--nodes", type=int, default=100)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    counts_bytes, nodes, failed = enter_network(), [], False
    try:
        alone = Node(options.server, 0)
        nodes.append(alone)
        alone.server.wait_ready()
        until(lambda: alone.info()["cluster_slots_ok"] == str(SLOTS), 10, "a cluster of one")
        of_one, began = alone.server.memory(), time.monotonic()
        nodes += [Node(options.server, number) for number in range(1, options.nodes)]
        until(lambda: all(node.info()["cluster_known_nodes"] == str(options.nodes) for node in reversed(nodes)), FORMED_SECONDS, "all nodes")
        print("known: every node sees all %d after %.1f s" % (options.nodes, time.monotonic() - began), flush=True)
        until(lambda: is_whole(nodes, options.nodes), FORMED_SECONDS, "all copies")
        print("formed: all slots with %d copies after %.1f s" % (REPLICAS, time.monotonic() - began), flush=True)
        until(lambda: is_settled(nodes), SETTLED_SECONDS, "an even distribution")
        print("settled: every node leads its share after %.1f s" % (time.monotonic() - began), flush=True)
        time.sleep(5)
        if counts_bytes:
            gossip, total = at_rest(nodes)
            print("at rest: gossip %.0f bytes per second and node (UDP payload), links and heartbeats %.0f with headers" % (gossip, total - gossip), flush=True)
        memory = [node.server.memory() for node in nodes]
        print("memory: %.1f MB resident (median; %.1f at most), %.1f MB more than a node alone (%.1f MB)" % (
            statistics.median(memory) / MEGABYTE, max(memory) / MEGABYTE, (statistics.median(memory) - of_one) / MEGABYTE, of_one / MEGABYTE), flush=True)
        count, led, served, whole = killed(nodes)
        print("killed%s: its %d slots are served by others after %.2f s; whole %.1f s after its start" % (
            ", the raft leader" if led else "", count, served, whole), flush=True)
    except RuntimeError as error:
        failed = True
        print("FAIL %s" % error)
    finally:
        for node in nodes:
            node.server.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
