"""One node, or a cluster of nodes, of Starling or of redis-server, as the client tests need them.

Starling's nodes form their cluster by themselves: the first is started with --cluster, the others with --join.
redis-server's are joined by redis-cli --cluster, so that the same tests can be checked against it.
"""
import re
import subprocess
import time

from harness.process import Server, command_line, is_redis
from harness.wire import Connection

SLOTS = 16384
SETTLE_SECONDS = 90


def call(port, *arguments):
    connection = Connection(port)
    try:
        return connection.call(*arguments)
    finally:
        connection.close()


def primaries(port):
    """{port of a primary: number of its slots} as one node sees it, from CLUSTER SLOTS."""
    owners = {}
    reply = call(port, "CLUSTER", "SLOTS")
    if isinstance(reply, Exception):
        raise reply
    for first, last, node, *_copies in reply:
        owners[node[1]] = owners.get(node[1], 0) + last - first + 1
    return owners


class Single:
    """A standalone server."""

    def __init__(self, command):
        self.servers = [Server(command)]
        self.servers[0].wait_ready()

    @property
    def addresses(self):
        return ["127.0.0.1:%d" % server.port for server in self.servers]

    def alive(self):
        return all(server.alive() for server in self.servers)

    def close(self):
        for server in self.servers:
            server.close()


class Cluster(Single):
    """`nodes` nodes that share all slots evenly; `join` adds one."""

    def __init__(self, command, nodes=3):
        self.command = command
        self.redis = is_redis(command_line(command))
        self.servers = []
        try:
            if self.redis:
                self.create_redis(nodes)
            else:
                self.servers.append(self.start("--cluster"))
                for _ in range(nodes - 1):
                    self.servers.append(self.start("--join", self.addresses[0]))
            self.wait_settled()
        except BaseException:
            self.close()
            raise

    def start(self, *extra):
        server = Server(self.command, extra)
        server.wait_ready()
        return server

    def create_redis(self, nodes):
        for _ in range(nodes):
            self.servers.append(self.start("--cluster-enabled", "yes"))
        self.redis_cli("create", *self.addresses, "--cluster-yes")

    def redis_cli(self, *arguments):
        done = subprocess.run(["redis-cli", "--cluster", *arguments], capture_output=True, text=True, timeout=180)
        if done.returncode:
            raise RuntimeError("redis-cli --cluster %s: %s%s" % (arguments[0], done.stdout[-800:], done.stderr[-400:]))

    def join(self):
        """Add a node, and wait until it owns its share."""
        if self.redis:
            self.servers.append(self.start("--cluster-enabled", "yes"))
            self.redis_cli("add-node", self.addresses[-1], self.addresses[0])
            # The newcomer must be known everywhere before slots are dealt out.
            self.wait_for(lambda: all(b"cluster_known_nodes:%d" % len(self.servers) in call(server.port, "CLUSTER", "INFO")
                                      for server in self.servers), "every node to know the newcomer")
            self.redis_cli("rebalance", self.addresses[0], "--cluster-use-empty-masters", "--cluster-threshold", "1")
        else:
            self.servers.append(self.start("--join", self.addresses[0]))
        self.wait_settled()

    def drain(self):
        """Ask the last node to hand over its slots and end; wait until the others own them. Starling only."""
        leaving = self.servers[-1]
        if not leaving.end(timeout=SETTLE_SECONDS):
            raise RuntimeError("the node did not end:\n" + leaving.log_tail())
        self.servers.pop().close()
        self.wait_settled()

    def wait_settled(self):
        """Until every node reports the same even distribution of all slots, and is well."""
        self.wait_for(self.settled, "an even distribution of slots")

    def settled(self):
        count = len(self.servers)
        views = [primaries(server.port) for server in self.servers]
        even = all(abs(slots - SLOTS / count) <= max(1, 0.01 * SLOTS / count) * (2 if self.redis else 1) for slots in views[0].values())
        complete = len(views[0]) == count and sum(views[0].values()) == SLOTS
        well = all(re.search(rb"cluster_state:ok", call(server.port, "CLUSTER", "INFO")) for server in self.servers)
        return even and complete and well and all(view == views[0] for view in views)

    def wait_for(self, condition, what):
        deadline, last = time.monotonic() + SETTLE_SECONDS, None
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except Exception as error:  # a node that is just starting, or answers an error for now
                last = error
            for server in self.servers:
                if not server.alive():
                    raise RuntimeError("a node ended:\n" + server.log_tail())
            time.sleep(0.05)
        views = []
        for server in self.servers:
            try:
                views.append("%d sees %s" % (server.port, primaries(server.port)))
            except Exception as error:
                views.append("%d: %s" % (server.port, error))
        raise RuntimeError("waited in vain for %s (%s): %s" % (what, last, "; ".join(views)))
