"""What happens to the nodes in a run: faults drawn from a seed, up to three at once, and the one that carries them out.

  kill      kill -9, and the node starts again later
  all       the same with all nodes; only where logs are to keep everything
  stop      a node stands still (SIGSTOP), and goes on (SIGCONT)
  cut       a node and all others do not reach each other, or one way only; clients reach all
  pair      the same between two nodes
  flicker   a node is cut off for moments, again and again: packets are lost
  slow      what a node sends is slow: delayed and lost (netem), or at a low rate where the kernel has no netem
"""
import random
import signal
import subprocess
import time
from collections import Counter, namedtuple

from harness.wire import Closed
from leases.nodes import SLOTS, wait_for

# begin: seconds from the start of the run. nodes: places in the list of nodes. how: "both", or one way: "out", "in".
Fault = namedtuple("Fault", "begin length kind nodes how")

AT_ONCE_MAX = 3
# Load before the first fault, and between the faults of a lane.
FIRST_SECONDS, BETWEEN_SECONDS = 0.7, (0.1, 1.5)
# (share, shortest, longest in seconds).
KINDS = {
    "kill": (5, 0.05, 3), "all": (1, 0.05, 1), "stop": (3, 0.2, 5), "cut": (3, 0.1, 4), "pair": (2, 0.1, 4), "flicker": (1, 0.5, 4),
    "slow": (2, 0.5, 4),
}
PROCESS_KINDS, LINK_KINDS = ("kill", "all", "stop"), ("cut", "pair", "flicker", "slow")
FLICKER_SECONDS = (0.02, 0.2)
# tc: netem or, without it, a rate at which answers of leases still come through, or do not.
NETEM = ("netem", "delay", "40ms", "30ms", "loss", "5%")
RATE = ("tbf", "rate", "400kbit", "burst", "4kb", "latency", "300ms")
# A cluster is whole when it says so for as long: what a node says that has just started may be what was.
WHOLE_SECONDS, LOOK_SECONDS = 1, 0.3
ANSWER_SECONDS, READY_SECONDS = 0.5, 60
TICK_SECONDS = 0.01


def draw(seed, seconds, count, kinds):
    """The faults of a run. Each of some lanes has one at a time; none begins that could not end within the run."""
    generator, faults = random.Random(seed), []
    for _lane in range(generator.randint(1, AT_ONCE_MAX)):
        at = FIRST_SECONDS + generator.uniform(*BETWEEN_SECONDS)
        while at < seconds:
            kind = generator.choices(kinds, [KINDS[kind][0] for kind in kinds])[0]
            nodes = generator.sample(range(count), {"all": count, "pair": 2}.get(kind, 1))
            fault = Fault(at, generator.uniform(*KINDS[kind][1:]), kind, tuple(nodes), generator.choice(("both", "both", "out", "in")))
            if at + fault.length < seconds and not any(collide(fault, other) for other in faults):
                faults.append(fault)
                at += fault.length
            at += generator.uniform(*BETWEEN_SECONDS)
    return sorted(faults)


def collide(one, other):
    """Whether both do something to one process at the same time, or to the sending of one node."""
    if not any(one.kind in kinds and other.kind in kinds for kinds in (PROCESS_KINDS, ("slow",))) or not set(one.nodes) & set(other.nodes):
        return False
    return one.begin < other.begin + other.length and other.begin < one.begin + one.length


def steps(faults, seed):
    """[(when, whether it begins, fault)] in order. One that flickers begins and ends many times."""
    generator, found = random.Random(seed), []
    for fault in faults:
        at, end = fault.begin, fault.begin + fault.length
        while fault.kind == "flicker" and at < end:
            off = at + generator.uniform(*FLICKER_SECONDS)
            found += [(at, True, fault), (off, False, fault)]
            at = off + generator.uniform(*FLICKER_SECONDS)
        if fault.kind != "flicker":
            found += [(at, True, fault), (end, False, fault)]
    return sorted(found)


def has_netem():
    """Whether the kernel can delay and lose packets; only within a network of one's own."""
    words = ["tc", "qdisc", "add", "dev", "lo", "root", *NETEM]
    if subprocess.run(words, capture_output=True, timeout=10).returncode:
        return False
    subprocess.run(["tc", "qdisc", "delete", "dev", "lo", "root"], check=True, timeout=10)
    return True


class Chaos:
    """Carries out faults. `spares_memory`: only so many nodes lose their memory as an acknowledgement by quorum survives."""

    def __init__(self, cluster, faults, seed, spares_memory):
        self.cluster, self.nodes, self.spares_memory = cluster, cluster.nodes, spares_memory
        self.steps, self.under_way, self.done, self.blocks = steps(faults, seed), [], [], Counter()
        # When all copies were first seen to be complete again; None: they are not, or nobody has seen it.
        self.is_memory_whole, self.whole_since, self.looked = True, None, 0
        # Lost writes that nodes had told of before they were killed.
        self.told = 0

    def run(self):
        """All of them, at their times; afterwards nothing is wrong with any node."""
        started = time.monotonic()
        try:
            for at, is_begin, fault in self.steps:
                while time.monotonic() < started + at:
                    self.look()
                    time.sleep(TICK_SECONDS)
                if not is_begin:
                    self.end(fault)
                elif self.may_begin(fault):
                    self.begin(fault)
        finally:
            for fault in list(self.under_way):
                self.end(fault)
        cut = {node.number: node.blocked() for node in self.nodes if node.has_namespace}
        if any(cut.values()):
            raise RuntimeError("the suite has left links cut: %s" % cut)
        wait_for(lambda: all(map(self.answer, self.nodes)), "all nodes to answer", self.nodes, READY_SECONDS)

    def may_begin(self, fault):
        return not (fault.kind == "kill" and self.spares_memory) or self.is_memory_whole

    def begin(self, fault):
        self.under_way.append(fault)
        if fault not in self.done:
            self.done.append(fault)
        getattr(self, fault.kind)(fault, True)

    def end(self, fault):
        if fault in self.under_way:
            self.under_way.remove(fault)
            getattr(self, fault.kind)(fault, False)

    def kill(self, fault, is_begin):
        nodes = [self.nodes[at] for at in fault.nodes]
        if not is_begin:
            for node in nodes:
                node.server.start()
            return
        self.told += sum(int((self.answer(node) or {}).get("starling_writes_lost", 0)) for node in nodes)
        for node in nodes:
            node.server.send_signal(signal.SIGKILL)
        for node in nodes:
            node.server.process.wait()
        self.is_memory_whole, self.whole_since = False, None

    all = kill

    def stop(self, fault, is_begin):
        self.nodes[fault.nodes[0]].server.send_signal(signal.SIGSTOP if is_begin else signal.SIGCONT)

    def cut(self, fault, is_begin):
        one = self.nodes[fault.nodes[0]]
        for other in self.nodes:
            if other is not one:
                self.block(one, other, fault.how, is_begin)

    flicker = cut

    def pair(self, fault, is_begin):
        one, other = (self.nodes[at] for at in fault.nodes)
        self.block(one, other, fault.how, is_begin)

    def block(self, one, other, how, is_begin):
        """Links may be cut by several faults: they are as long as any of them lasts."""
        for way, pair in (("out", (one, other)), ("in", (other, one))):
            if how not in (way, "both"):
                continue
            before = self.blocks[pair]
            self.blocks[pair] += 1 if is_begin else -1
            if bool(before) != bool(self.blocks[pair]):
                pair[0].block(pair[1], is_begin)

    def slow(self, fault, is_begin):
        words = (NETEM if self.cluster.has_netem else RATE) if is_begin else ()
        subprocess.run(("tc", "-n", self.nodes[fault.nodes[0]].namespace, "qdisc", "add" if is_begin else "delete", "dev", "eth0", "root") + words,
                       check=True, timeout=10)

    def look(self):
        """Notes when all copies are complete after a kill."""
        if self.is_memory_whole or time.monotonic() < self.looked + LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        if any(fault.kind in PROCESS_KINDS for fault in self.under_way) or not all(map(self.is_whole, self.nodes)):
            self.whole_since = None
            return
        self.whole_since = self.whole_since or self.looked
        self.is_memory_whole = self.looked >= self.whole_since + WHOLE_SECONDS

    def is_whole(self, node):
        info = self.answer(node)
        return bool(info) and int(info["starling_copies_ready"]) == SLOTS * self.cluster.replicas and info["cluster_slots_ok"] == str(SLOTS)

    @staticmethod
    def answer(node):
        """CLUSTER INFO of a node; None where it does not answer."""
        try:
            return node.info(ANSWER_SECONDS)
        except (OSError, Closed, AttributeError):
            return None
