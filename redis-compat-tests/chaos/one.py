"""One run: the load, the faults, and what is wrong with what was answered and with what is there at the end."""
import random
import time
from collections import Counter

from chaos import faults
from chaos.linear import ACKNOWLEDGED, GOOD, UNDECIDED, UNKNOWN, WRONG, check
from chaos.load import History, Load, Router, keys_over_all_slots, kind_of, words
from harness.routing import GaveUp
from leases.nodes import wait_for

WHOLE_SECONDS, READ_SECONDS, ALIKE_SECONDS = 60, 30, 20
# With asynchronous acknowledgement copies have by then what was acknowledged.
SETTLED_SECONDS = 2
SHOWN_BEFORE, SHOWN_AFTER, ELEMENTS_SHOWN = 25, 10, 8
READING = {"register": "GET", "counter": "GET", "set": "SMEMBERS", "list": "LRANGE"}


class Run:
    """`problems`: what is wrong, a line each."""

    def __init__(self, suite, number):
        self.cluster, self.seed, self.expects_all = suite.cluster, suite.options.seed + number, suite.expect != "async"
        self.keys, self.history, self.problems = keys_over_all_slots("%d.%d" % (self.seed, number)), History(), []
        drawn = faults.draw(self.seed, suite.options.seconds, len(self.cluster.nodes), suite.kinds)
        self.chaos = faults.Chaos(self.cluster, drawn, self.seed, suite.options.acknowledge != "quorum+fsync")
        self.whole, self.silent, self.told, self.is_read = None, 0, 0, False
        self.began, self.verdicts, self.lost = time.monotonic(), Counter(), 0

    def run(self):
        told = self.writes_lost()
        load, self.began = Load(self.cluster.nodes, self.keys, self.history, self.seed), time.monotonic()
        try:
            self.chaos.run()
            self.whole = wait_for(self.cluster.is_whole, "the cluster to be whole", self.cluster.nodes, WHOLE_SECONDS)
        except RuntimeError as error:
            # What is there says more than that.
            self.problems.append(str(error))
        finally:
            self.silent = self.history.longest_silence(self.began, time.monotonic())
            self.problems += load.stop()
        self.look()
        self.told = self.writes_lost() + self.chaos.told - told
        self.problems += self.history.strange()
        if self.cluster.different():
            self.problems.append("%d copies differ from their primaries" % self.cluster.different())

    def writes_lost(self):
        """What all nodes tell of it."""
        return sum(int(node.info()["starling_writes_lost"]) for node in self.cluster.nodes)

    def look(self):
        """Reads all keys, and what copies have of them."""
        router = Router([(node.host, node.port) for node in self.cluster.nodes], 7)
        chosen, values = random.Random(self.seed), {}
        for key in self.keys:
            until = time.monotonic() + READ_SECONDS
            while key not in values:
                name, sent = READING[kind_of(key)], time.monotonic()
                address, reply = router.once(key, words(key, name, None), chosen)
                if self.history.record(key, name, None, sent, reply, 0, address[1]) == ACKNOWLEDGED:
                    values[key] = comparable(key, reply)
                elif time.monotonic() > until:
                    raise GaveUp("%s cannot be read: %s" % (key, reply))
        router.close()
        self.is_read = True
        for node in self.cluster.nodes:
            self.compare(node, values)

    def compare(self, node, values):
        """Whether the copies that a node has are like their primaries; they have a moment to become so."""
        until, wrong = time.monotonic() + ALIKE_SECONDS, differing(node, values)
        while wrong and time.monotonic() < until:
            wrong = differing(node, values)
        self.problems += ["node %d has %s: %s, its primary: %s" % (node.number, key, copy, values[key]) for key, copy in wrong.items()]

    def check(self):
        """Whether one server could have answered so, key by key."""
        for key in self.keys:
            operations = sorted(self.history.operations[key], key=lambda one: one.sent)
            verdict = check(kind_of(key), operations)
            self.verdicts[verdict.kind] += 1
            self.lost += lost(operations, kind_of(key)) if self.is_read else 0
            if self.expects_all and verdict.kind != GOOD:
                self.problems.append("%s: %s at %s" % (key, verdict.kind, shown(verdict.operation)))
                self.problems += around(operations, verdict.operation)
            elif kind_of(key) == "list" and self.is_read:
                self.problems += ["%s has not %s, settled before" % (key, one.argument.decode())
                                  for one in missing(operations) if self.is_settled(one)]

    def is_settled(self, operation):
        """Whether nothing was done to the nodes for a while before and after it was acknowledged."""
        at, done = operation.received - self.began, self.chaos.done
        return all(at > fault.begin + fault.length + SETTLED_SECONDS or at + SETTLED_SECONDS < fault.begin for fault in done)

    def line(self):
        """What is printed of a run."""
        history, kinds = self.history, Counter(fault.kind for fault in self.chaos.done)
        parts = [", ".join("%s %d" % pair for pair in sorted(kinds.items())) or "no faults"]
        parts += ["%d operations, %d acknowledged, %d unknown" % (history.count(), history.count(ACKNOWLEDGED), history.count(UNKNOWN))]
        parts += ["no acknowledged write for %.2f s" % self.silent, "whole %s" % (
            "never" if self.whole is None else "after %.1f s" % self.whole)]
        if self.is_read and (self.lost or not self.expects_all):
            parts += ["%d writes found to be lost, %d told, %d keys contradict" % (self.lost, self.told, self.verdicts[WRONG])]
        return "seed %d: %s: %s" % (self.seed, "; ".join(parts), self.verdict())

    def verdict(self):
        """WRONG and UNDECIDED are about what was answered, FAIL is all else."""
        if not self.problems or not self.expects_all:
            return "FAIL" if self.problems else GOOD
        return WRONG if self.verdicts[WRONG] else UNDECIDED if self.verdicts[UNDECIDED] else "FAIL"


def differing(node, values):
    """{key: value} of what a node has in other ways than its primary. What it has no copy of does not count."""
    connection = node.connect()
    try:
        connection.call("READONLY")
        found = {key: connection.call(*words(key, READING[kind_of(key)], None)) for key in values}
    finally:
        connection.close()
    return {key: copy for key, copy in found.items() if not isinstance(copy, Exception) and comparable(key, copy) != values[key]}


def missing(operations):
    """Elements of a list that were acknowledged and are not in the last read."""
    there = next((one.reply for one in reversed(operations) if one.name == "LRANGE" and one.outcome == ACKNOWLEDGED), [])
    return [one for one in operations if one.name == "RPUSH" and one.outcome == ACKNOWLEDGED and one.argument not in there]


def lost(operations, kind):
    """How many acknowledged writes are surely missing at the end; nothing is known of registers and sets in this way."""
    if kind == "list":
        return len(missing(operations))
    if kind != "counter":
        return 0
    last = next((int(one.reply or 0) for one in reversed(operations) if one.name == "GET" and one.outcome == ACKNOWLEDGED), 0)
    return max(0, sum(one.name == "INCR" and one.outcome == ACKNOWLEDGED for one in operations) - last)


def comparable(key, reply):
    """Members of a set have no order."""
    return sorted(reply) if kind_of(key) == "set" and isinstance(reply, list) else reply


def shown(one):
    """An operation in a line."""
    reply = one.reply
    if isinstance(reply, list):
        last = [element.decode() for element in reply[-ELEMENTS_SHOWN:]]
        reply = "%d elements, %s%s" % (len(reply), "... " * (len(last) < len(reply)), " ".join(last))
    argument = one.argument.decode() if one.argument else ""
    return "%.4f to %.4f, client %d at %s: %s %s -> %s" % (one.sent, one.received, one.client, one.node, one.name, argument, reply)


def around(operations, operation):
    """What was asked before and after, without what was refused; the last read; and what is of unknown outcome."""
    told = [one for one in operations if one.outcome == ACKNOWLEDGED]
    at = told.index(operation)
    lines = ["  %s%s" % ("> " if one is operation else "  ", shown(one)) for one in told[max(0, at - SHOWN_BEFORE):at + SHOWN_AFTER]]
    lines += ["    unknown: %s" % shown(one) for one in operations if one.outcome == UNKNOWN and one.sent < operation.received]
    return lines + ["    at last: %s" % shown(told[-1])]
