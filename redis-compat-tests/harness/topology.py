"""One node, or a cluster of nodes, of Starling or of redis-server, as the suites need them.

Starling's nodes form their cluster by themselves: the first is started with --cluster, the others with --join, and
SIGTERM makes a node hand over its slots and end. redis-server's nodes are joined, fed and emptied by
redis-cli --cluster, so that the same tests can be checked against it.
"""
import re
import subprocess
import time

from harness.process import Server, command_line, is_redis
from harness.wire import Connection

SLOTS = 16384
SETTLE_SECONDS = 60
# How long an empty redis-server is kept before it leaves.
LINGER_SECONDS = 2


def call(port, *arguments):
    connection = Connection(port)
    try:
        return connection.call(*arguments)
    finally:
        connection.close()


def ranges(port):
    """[(first slot, last slot, port of the primary)] as one node sees it, from CLUSTER SLOTS."""
    reply = call(port, "CLUSTER", "SLOTS")
    if isinstance(reply, Exception):
        raise reply
    return sorted((first, last, node[1]) for first, last, node, *_copies in reply)


def primaries(port):
    """{port of a primary: number of its slots} as one node sees it."""
    owners = {}
    for first, last, owner in ranges(port):
        owners[owner] = owners.get(owner, 0) + last - first + 1
    return owners


class Single:
    """A standalone server."""

    def __init__(self, command):
        self.servers = [Server(command)]
        self.servers[0].wait_ready()

    @property
    def addresses(self):
        return ["127.0.0.1:%d" % server.port for server in self.servers]

    @property
    def ports(self):
        return [server.port for server in self.servers]

    def alive(self):
        return all(server.alive() for server in self.servers)

    def close(self):
        for server in self.servers:
            server.close()


class Cluster(Single):
    """`nodes` nodes that share all slots evenly; `join` adds one, `drain` takes one away."""

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
        try:
            server.wait_ready()
        except BaseException:
            server.close()
            raise
        return server

    def create_redis(self, nodes):
        for _ in range(nodes):
            self.servers.append(self.start("--cluster-enabled", "yes"))
        self.redis_cli("create", *self.addresses, "--cluster-yes")

    @staticmethod
    def redis_cli(*arguments):
        done = subprocess.run(["redis-cli", "--cluster", *arguments], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError("redis-cli --cluster %s: %s%s" % (arguments[0], done.stdout[-800:], done.stderr[-400:]))

    def join(self):
        """Add a node and wait until it owns its share; seconds from its start."""
        started = time.monotonic()
        if self.redis:
            self.servers.append(self.start("--cluster-enabled", "yes"))
            self.redis_cli("add-node", self.addresses[-1], self.addresses[0])
            # The newcomer must be known everywhere before slots are dealt out.
            self.wait_for(self.all_known, "every node to know the newcomer")
            self.redis_cli("rebalance", self.addresses[0], "--cluster-use-empty-masters", "--cluster-threshold", "1")
        else:
            self.servers.append(self.start("--join", self.addresses[0]))
        self.wait_settled()
        return time.monotonic() - started

    def drain(self, index=-1):
        """Ask a node to hand over its slots and end, and wait until the others share them; seconds that it took.

        It must end by itself, with 0.
        """
        started, leaving = time.monotonic(), self.servers[index]
        if self.redis:
            # redis-server keeps its slots when it is told to end.
            name = call(leaving.port, "CLUSTER", "MYID").decode()
            staying = next(server for server in self.servers if server is not leaving)
            address = "127.0.0.1:%d" % staying.port
            self.redis_cli("rebalance", address, "--cluster-weight", name + "=0", "--cluster-threshold", "1")
            # While it still answers, clients learn by MOVED where its last slots went; not all look elsewhere by themselves.
            time.sleep(LINGER_SECONDS)
            self.redis_cli("del-node", address, name)
        if not leaving.end(timeout=SETTLE_SECONDS):
            raise RuntimeError("the node did not end:\n" + leaving.log_tail())
        if leaving.process.returncode:
            raise RuntimeError("the node ended with %d:\n%s" % (leaving.process.returncode, leaving.log_tail()))
        self.servers.remove(leaving)
        last_words = leaving.log_tail()
        leaving.close()
        try:
            self.wait_settled()
        except RuntimeError as error:
            raise RuntimeError("%s\nThe log of the node that left, its end:\n%s" % (error, last_words)) from None
        return time.monotonic() - started

    def all_known(self):
        known = b"cluster_known_nodes:%d\r" % len(self.servers)
        answers = [call(port, "CLUSTER", "INFO") for port in self.ports]
        return all(known in answer and b"cluster_state:ok" in answer for answer in answers)

    def wait_settled(self):
        """Until every node reports the same even distribution of all slots, and is well."""
        self.wait_for(self.settled, "an even distribution of slots")

    def settled(self):
        count = len(self.servers)
        views = [ranges(port) for port in self.ports]
        shares = primaries(self.ports[0])
        # redis-cli deals with a tolerance of its own.
        within = max(1, 0.01 * SLOTS / count) * (2 if self.redis else 1)
        even = all(abs(slots - SLOTS / count) <= within for slots in shares.values())
        complete = set(shares) == set(self.ports) and sum(shares.values()) == SLOTS
        well = all(b"cluster_state:ok" in call(port, "CLUSTER", "INFO") for port in self.ports)
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
        for port in self.ports:
            try:
                state = re.search(rb"cluster_state:(\w+)", call(port, "CLUSTER", "INFO"))
                views.append("%d sees %s, %s" % (port, primaries(port), state and state.group(1).decode()))
            except Exception as error:
                views.append("%d: %s" % (port, error))
        raise RuntimeError("waited in vain for %s (%s): %s" % (what, last, "; ".join(views)))
