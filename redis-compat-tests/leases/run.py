#!/usr/bin/env python3
"""Nodes that stand still or are cut off from the others while their slots are given away: no two may answer for a slot.

  run.py                          three rounds of each kind against target/release/starling
  run.py --rounds 50              the long form: 50 rounds of each kind
  run.py --kinds cut --seed 7     rounds of one kind

One cluster of three nodes. A thread for each node reads and writes 30 keys over all slots at that node only. Rounds:

stop: a node stands still (SIGSTOP) until the others say that it failed; CLUSTER FORGET gives its slots to them, they are
    written to, 200 GETs and 200 SETs more are sent to it over connections that it has, and it goes on (SIGCONT).
cut: the same with a node whose links to the others are cut, while clients reach it. Needs root, or a kernel that gives
    namespaces to everybody; where they cannot be had this is said, and these rounds are left out.
nap: a node stands still for up to 3 s, and nobody gives its slots away.

After each round everything that was answered must be what one server could have answered (history.py). The only errors
may be MOVED, CLUSTERDOWN, TRYAGAIN, INDOUBT and connections that are closed. The seed is printed; it decides who stands still
and what is sent, not what the machine does with it.
"""
import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.process import COMMANDS  # noqa: E402
from harness.wire import Closed  # noqa: E402
from leases.history import History  # noqa: E402
from leases.load import Load, Numbers, Sent, keys_over_all_slots, slot_of  # noqa: E402
from leases.nodes import Nodes, enter_network, wait_for  # noqa: E402

KINDS = ("stop", "cut", "nap")
KEYS = 30
WAITING, WAITING_CONNECTIONS = 400, 8
# Load before the fault, and after the cluster is whole again.
BEFORE_SECONDS, AFTER_SECONDS = 0.3, 0.3
NAP_SECONDS = (0.1, 3)
FAIL_SECONDS, WRITTEN_SECONDS = 30, 10
PROBLEMS_SHOWN, LOG_BYTES = 10, 4000


class Figures:
    """What is printed at the end."""

    def __init__(self):
        self.rounds, self.failed, self.waiting, self.errors = Counter(), 0, Counter(), Counter()
        self.noticed, self.silent, self.requests = [], {}, 0


class Round:
    """One fault, and what was answered meanwhile."""

    def __init__(self, suite, kind, number):
        self.suite, self.nodes, self.kind = suite, suite.nodes, kind
        self.random = random.Random("%d/%s/%d" % (suite.seed, kind, number))
        self.victim = self.random.choice(self.nodes.nodes)
        self.others = self.nodes.others(self.victim)
        self.random.shuffle(self.others)
        self.history = History(suite.values)
        self.line = ""

    def run(self):
        """What is wrong."""
        load = Load(self.nodes, self.suite.keys, self.suite.numbers, self.history, self.random.random())
        connections = [self.victim.connect() for _ in range(WAITING_CONNECTIONS)]
        try:
            time.sleep(BEFORE_SECONDS)
            self.begin_fault()
            try:
                waiting = self.give_away(connections) if self.kind != "nap" else []
                if self.kind == "nap":
                    time.sleep(self.random.uniform(*NAP_SECONDS))
            finally:
                resumed = time.monotonic()
                self.end_fault()
            for batch in waiting:
                kinds, _is_good = batch.receive(self.history)
                self.suite.figures.waiting += kinds
            self.nodes.wait_whole()
            whole = time.monotonic() - resumed
            time.sleep(AFTER_SECONDS)
            silent = self.history.longest_silence(resumed, time.monotonic())
        finally:
            load.stop()
            for connection in connections:
                connection.close()
        self.suite.figures.silent.setdefault(self.kind, []).append(silent)
        self.line += "whole %.1f s later, longest silence of a key %.2f s" % (whole, silent)
        self.suite.values = self.look()
        return self.history.problems()

    def begin_fault(self):
        if self.kind == "cut":
            # Packets are dropped on their way out, or on both ways: what a node hears of others need not end at once.
            self.blocks = [(self.victim, other) for other in self.others]
            if self.random.random() < 0.5:
                self.blocks += [(other, self.victim) for other in self.others]
            for one, other in self.blocks:
                one.block(other, True)
        else:
            self.victim.server.send_signal(signal.SIGSTOP)

    def end_fault(self):
        if self.kind == "cut":
            for one, other in self.blocks:
                one.block(other, False)
        else:
            self.victim.server.send_signal(signal.SIGCONT)

    def give_away(self, connections):
        """Gives the slots of the node to the others, and sends it what must not be answered: batches that wait."""
        witness, other = self.others
        noticed = wait_for(lambda: "fail" in witness.flags()[self.victim.id], "a node to be noticed", self.nodes, FAIL_SECONDS)
        self.suite.figures.noticed.append(noticed)
        slots = [range(first, last + 1) for first, last, port in witness.owners() if port == self.victim.port]
        lost = [key for key in self.suite.keys if any(slot_of(key) in part for part in slots)]
        asked = time.monotonic()
        reply = other.call("CLUSTER", "FORGET", self.victim.id)
        if reply != b"OK":
            raise RuntimeError("CLUSTER FORGET is answered %s" % reply)
        taken = self.nodes.wait_whole(self.others)
        served = time.monotonic()
        self.history.begin_anew(lost, self.victim.number, asked, served)
        wait_for(lambda: self.are_written(lost, served), "the lost keys to be written", self.nodes, WRITTEN_SECONDS)
        self.line = "noticed after %.2f s, %d keys given away in %.2f s, " % (noticed, len(lost), taken)
        requests = [self.random.choice(lost or self.suite.keys) for _ in range(WAITING)]
        each = WAITING // len(connections)
        return [
            Sent(connection, self.victim, [
                (key, self.suite.numbers.draw() if at % 2 else None)
                for at, key in enumerate(requests[part * each:(part + 1) * each])])
            for part, connection in enumerate(connections)]

    def are_written(self, keys, since):
        """Whether others have acknowledged writes of all these keys."""
        with self.history.lock:
            return all(any(since < write.received < float("inf") and write.node != self.victim.number
                           for write in self.history.writes[key]) for key in keys)

    def look(self):
        """Reads all keys where they are now; the values. What was read counts."""
        owners, values = self.others[0].owners(), {}
        for node in self.nodes:
            mine = [key for key in self.suite.keys
                    if any(first <= slot_of(key) <= last for first, last, port in owners if port == node.port)]
            connection = node.connect()
            Sent(connection, node, [(key, None) for key in mine]).receive(self.history)
            connection.close()
            values.update((key, self.history.reads[key][-1].value) for key in mine)
        return values


class Suite:
    """The cluster, its keys, and what has been found."""

    def __init__(self, options, has_namespaces):
        self.seed, self.figures = options.seed, Figures()
        self.keys, self.numbers = keys_over_all_slots(KEYS), Numbers()
        self.values = dict.fromkeys(self.keys)
        self.nodes = Nodes(options.server, has_namespaces)

    def round(self, kind, number):
        """Runs a round, prints a line, and says whether it was good."""
        started, figures, one = time.monotonic(), self.figures, None
        try:
            # Of slots that are given away it must be known whose they were. And one that is moving has a copy, which is elected where its
            # primary naps: what that one acknowledged at the last moment is lost then, as asynchronous acknowledgement has it.
            self.nodes.wait_balanced()
            one = Round(self, kind, number)
            problems = one.run()
            figures.errors += one.history.errors
            figures.requests += one.history.requests
        except (RuntimeError, OSError, Closed, KeyError) as error:
            problems = ["%s: %s" % (type(error).__name__, error)] + (one.history.problems() if one else [])
        figures.rounds[kind] += 1
        figures.failed += bool(problems)
        print("%-4s %2d: %s: node %s, %s; %.1f s" % (
            kind, number + 1, "FAIL" if problems else "good", one and one.victim.number, one and one.line, time.monotonic() - started))
        for problem in problems[:PROBLEMS_SHOWN]:
            print("    FAIL %s" % problem)
        if len(problems) > PROBLEMS_SHOWN:
            print("    ... and %d more" % (len(problems) - PROBLEMS_SHOWN))
        sys.stdout.flush()
        return not problems

    def report(self):
        figures = self.figures
        print("rounds: %s" % listed(figures.rounds))
        if figures.noticed:
            print("a node was noticed after %.2f s (median), %.2f s at most" % (
                statistics.median(figures.noticed), max(figures.noticed)))
        print("requests that waited for the node: %s" % listed(figures.waiting))
        print("%d requests in all; errors among them: %s" % (figures.requests, listed(figures.errors)))
        for kind, seconds in sorted(figures.silent.items()):
            print("%s: longest time in which some key had no answer after the fault: %.2f s (median of rounds), %.2f s at most" % (
                kind, statistics.median(seconds), max(seconds)))


def listed(counts):
    return ", ".join("%s %d" % pair for pair in sorted(counts.items())) or "none"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="path of a starling binary")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of them, separated by commas")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    # Processes that stand still are ended however this one is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds, has_namespaces = options.kinds.split(","), enter_network()
    subprocess.run([sys.executable, os.path.join(HERE, "test_history.py")], check=True, stderr=subprocess.DEVNULL, timeout=60)
    if not has_namespaces and "cut" in kinds:
        print("leases: no network namespaces can be had here: no links are cut")
        kinds.remove("cut")
    print("leases: seed %d, %d rounds of each of %s" % (options.seed, options.rounds, ", ".join(kinds)), flush=True)
    started, suite = time.monotonic(), Suite(options, has_namespaces)
    try:
        for number in range(options.rounds):
            # What comes after a round that failed says little.
            if not all(suite.round(kind, number) for kind in kinds):
                for node in suite.nodes:
                    print("-- log of node %d, its end\n%s" % (node.number, node.server.log_tail(LOG_BYTES)))
                break
        suite.report()
    finally:
        suite.nodes.close()
    failed = suite.figures.failed
    print("leases: %s: %d rounds, %d failed, %.0f s" % (
        "FAIL" if failed else "PASS", sum(suite.figures.rounds.values()), failed, time.monotonic() - started))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
