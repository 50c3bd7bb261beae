"""Three nodes: each in a network namespace of its own where that can be had, so that its links can be cut, or on loopback.

The suite runs itself again within a network and a view of mounts of its own (unshare): there it may make bridges and
namespaces, and all of them are gone with its last process, however that ends.
"""
import os
import shutil
import subprocess
import sys
import time

from harness.process import Server, free_port, starling
from harness.wire import Connection

SLOTS = 16384
NETWORK = "10.77.0."
HOST = NETWORK + "254"
# A bridge, and a place for names of namespaces that is not the machine's.
PREPARE = ("ip link set lo up && mount -t tmpfs none /run && mkdir /run/netns && ip link add nodes type bridge"
           " && ip address add %s/24 dev nodes && ip link set nodes up && ip netns add probe && ip netns exec probe true"
           " && ip netns delete probe") % HOST
INSIDE = "LEASES_INSIDE"
# Long: a build without optimization on a busy machine moves slots slowly.
SETTLE_SECONDS, LOOK_SECONDS = 180, 0.02


def enter_network():
    """Runs this program again where it may cut links. Returns whether it may: False where that cannot be."""
    if os.environ.get(INSIDE):
        subprocess.run(PREPARE, shell=True, check=True, timeout=20)
        return True
    words = ["unshare", "--net", "--mount"] + (["--map-root-user"] if os.geteuid() else [])
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    tried = subprocess.run(words + ["sh", "-c", PREPARE], capture_output=True, text=True, timeout=20)
    if tried.returncode:
        return False
    sys.stdout.flush()
    os.environ[INSIDE] = "yes"
    os.execvp(words[0], words + [sys.executable] + sys.argv)


def ip(*words):
    subprocess.run(("ip",) + words, check=True, timeout=10)


class Node:
    """A server with its address; its port is its own among all nodes."""

    def __init__(self, binary, number, has_namespace, *extra, port=None):
        self.number, self.has_namespace, command = number, has_namespace, starling(binary)
        self.host, self.namespace = "127.0.0.1", "node%d" % number
        if has_namespace:
            self.host = NETWORK + str(number)
            self.make_namespace()
            command = "ip netns exec %s %s" % (self.namespace, command)
            extra += ("--bind", self.host, "--protected-mode", "no", "--cluster-secret", "of-the-suite")
        self.server = Server(command, extra, port=port or free_port(), host=self.host)
        try:
            self.server.wait_ready()
            self.id = self.call("CLUSTER", "MYID").decode()
        except BaseException:
            self.close()
            raise

    def make_namespace(self):
        wire = "wire%d" % self.number
        ip("netns", "add", self.namespace)
        ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", wire, "master", "nodes", "up")
        ip("-n", self.namespace, "address", "add", self.host + "/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")

    def close(self):
        self.server.close()
        if self.has_namespace:
            # The link first: with its namespace it would go a moment later, and another node by this number could not be made.
            ip("link", "delete", "wire%d" % self.number)
            ip("netns", "delete", self.namespace)

    @property
    def port(self):
        return self.server.port

    @property
    def address(self):
        return "%s:%d" % (self.host, self.port)

    def connect(self, timeout=30):
        return Connection(self.port, timeout, host=self.host)

    def call(self, *arguments, timeout=30):
        connection = self.connect(timeout)
        try:
            return connection.call(*arguments)
        finally:
            connection.close()

    def info(self, timeout=30):
        """The fields of CLUSTER INFO."""
        text = self.call("CLUSTER", "INFO", timeout=timeout).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def flags(self):
        """{id: flags} of the members, as this node sees them."""
        rows = [row.split() for row in self.call("CLUSTER", "NODES").decode().splitlines() if row]
        return {row[0]: row[2].split(",") for row in rows}

    def owners(self):
        """[(first slot, last slot, port)] as this node sees it, of slots that have an owner."""
        reply = self.call("CLUSTER", "SLOTS")
        if isinstance(reply, Exception):
            raise reply
        return sorted((first, last, node[1]) for first, last, node, *_copies in reply)

    def block(self, other, is_blocked):
        """Whether packets to another node are dropped."""
        ip("-n", self.namespace, "route", "add" if is_blocked else "delete", "blackhole", other.host + "/32")

    def blocked(self):
        """The addresses to which packets are dropped."""
        words = ["ip", "-n", self.namespace, "route", "show", "type", "blackhole"]
        told = subprocess.run(words, check=True, timeout=10, capture_output=True, text=True).stdout
        return [line.split()[1] for line in told.splitlines()]


class Nodes:
    """The cluster. Slots have no copies: what a node has that is given up begins anew."""

    def __init__(self, binary, has_namespaces, count=3):
        self.nodes = []
        try:
            for number in range(1, count + 1):
                how = ("--join", self.nodes[0].address) if self.nodes else ("--cluster", "--replicas", "0")
                self.nodes.append(Node(binary, number, has_namespaces, *how))
            self.wait_balanced()
        except BaseException:
            self.close()
            raise

    def __iter__(self):
        return iter(self.nodes)

    def others(self, node):
        return [other for other in self.nodes if other is not node]

    def close(self):
        for node in self.nodes:
            node.close()

    def is_whole(self, among=None):
        """Whether each of them (or of those) sees just them as members, and all slots served by them. Slots may be moving."""
        among = among or self.nodes
        members, ports = {node.id for node in among}, {node.port for node in among}
        for node in among:
            flags = node.flags()
            if set(flags) != members or any("fail" in marks for marks in flags.values()):
                return False
            if node.info()["cluster_slots_ok"] != str(SLOTS) or not set(shares(node.owners())) <= ports:
                return False
        return True

    def is_balanced(self):
        """Whether slots and votes are shared evenly."""
        views, each = [node.owners() for node in self.nodes], SLOTS / len(self.nodes)
        owned = shares(views[0])
        is_even = len(owned) == len(self.nodes) and all(abs(slots - each) <= 0.01 * each for slots in owned.values())
        # While the votes come back to a node that was forgotten, one of the others decides alone, and cannot be given up.
        votes = [sorted(node.info()["starling_lease_voters"].split(",")) for node in self.nodes]
        has_votes = all(each == sorted(node.id for node in self.nodes) for each in votes)
        return is_even and has_votes and all(view == views[0] for view in views) and self.is_whole()

    def wait_balanced(self):
        return wait_for(self.is_balanced, "an even distribution of slots", self)

    def wait_whole(self, among=None):
        return wait_for(lambda: self.is_whole(among), "all slots to be served", self)


def shares(owners):
    """{port: number of slots}."""
    owned = {}
    for first, last, port in owners:
        owned[port] = owned.get(port, 0) + last - first + 1
    return owned


def wait_for(condition, what, nodes, limit=SETTLE_SECONDS):
    """Looks again and again; seconds that it took. A node that ends is an error."""
    started, last = time.monotonic(), None
    while time.monotonic() - started < limit:
        try:
            if condition():
                return time.monotonic() - started
        except Exception as error:  # a node that answers an error for now
            last = error
        for node in nodes:
            if not node.server.alive():
                raise RuntimeError("node %d ended:\n%s" % (node.number, node.server.log_tail()))
        time.sleep(LOOK_SECONDS)
    raise RuntimeError("waited in vain for %s (%s): %s" % (what, last, "; ".join(map(view, nodes))))


def view(node):
    """What a node says of the cluster, for a message."""
    try:
        flags, members = node.flags(), node.info()
        return "node %d (%s) sees %s with %s, led by %s" % (
            node.number, node.id[:8], ", ".join("%s %s" % (id[:8], ",".join(marks)) for id, marks in flags.items()),
            shares(node.owners()), members["starling_raft_leader"][:8] or "nobody")
    except Exception as error:
        return "node %d: %s" % (node.number, error)
