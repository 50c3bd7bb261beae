"""Where the cases run: one node, the nodes of a cluster, a proxy listener of that cluster, and redis-server.

`connect(key)` gives a connection on which commands for that key are executed: in a cluster the owner's, as a cluster
client would choose it; the proxy listener is that of a node that owns neither `Places.a` nor `Places.b`.
"""
import time

from harness.process import free_port, starling
from harness.routing import slot_of
from harness.topology import Cluster, Single, ranges
from harness.wire import Connection

LIMIT_SECONDS = 20
NODES = 3
KEYS = ["key-%d" % number for number in range(1000)]


def eventually(condition, what, limit=LIMIT_SECONDS):
    """None as soon as the condition holds, or what was waited for in vain."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return "waited %d s in vain: %s" % (limit, what)
        time.sleep(0.02)
    return None


class ProxyCluster(Cluster):
    """Three nodes, each with a proxy listener. Slots have no copies: what a node has that is killed nobody serves."""

    def start(self, *extra):
        port = free_port()
        server = super().start(*extra, "--replicas", "0", "--proxy-port", str(port))
        server.proxy_port = port
        return server


class Place:
    """One of them by its name; `server` is the node of the proxy listener."""

    def __init__(self, name, topology):
        self.name, self.topology = name, topology
        self.server = topology.servers[0]
        self.owners = {} if name in ("redis-server", "one node") else self.slots()

    def slots(self):
        return {slot: port for first, last, port in ranges(self.server.port) for slot in range(first, last + 1)}

    def connect(self, key):
        if self.name == "proxy":
            return Connection(self.server.proxy_port)
        return Connection(self.owners.get(slot_of(key), self.server.port))

    def connect_here(self):
        """For what is not about keys, and for `own_key`."""
        return Connection(self.server.proxy_port if self.name == "proxy" else self.server.port)

    def own_key(self):
        return next(name for name in KEYS if self.owners.get(slot_of(name), self.server.port) == self.server.port)


def foreign_keys(owners, own):
    """Two keys whose slots belong to two different nodes, neither of which listens at `own`."""
    first = next(name for name in KEYS if owners[slot_of(name)] != own)
    second = next(name for name in KEYS if owners[slot_of(name)] not in (own, owners[slot_of(first)]))
    return first, second


class Places:
    """All of them, started once. `a` and `b` are the keys of `foreign_keys`; every place uses the same."""

    def __init__(self, binary):
        self.binary, self.topologies = binary, []
        command = starling(binary) + " --threads 2"
        try:
            redis, single = self.keep(Single("redis")), self.keep(Single(command))
            self.cluster = self.keep(ProxyCluster(command, NODES))
        except BaseException:
            self.close()
            raise
        self.redis = Place("redis-server", redis)
        self.tested = [Place("one node", single), Place("cluster", self.cluster), Place("proxy", self.cluster)]
        self.a, self.b = foreign_keys(self.tested[2].owners, self.tested[2].server.port)

    def keep(self, topology):
        self.topologies.append(topology)
        return topology

    def close(self):
        for topology in self.topologies:
            topology.close()
