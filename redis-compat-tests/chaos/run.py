#!/usr/bin/env python3
"""Any node may die: processes under a load that is written down, with up to three faults at once, and a check of what was answered.

  run.py                             two runs of 10 s against target/release/starling: three nodes, two copies of every slot
  run.py --runs 100 --seconds 20     the long form
  run.py --runs 1 --seed 7           a run again: the same faults and requests, as far as the machine does the same with them
  run.py --nodes 5                   another cluster
  run.py --acknowledge quorum+fsync  nodes have logs, and all of them may be killed
  run.py --acknowledge async         what is lost behind a kill is counted, beside what the nodes tell of it
  run.py --acknowledge async --expect quorum --runs 3 --seconds 20 --faults kill,cut   checks the suite: it must find lost writes

Each run: clients set, count, append, add and remove on keys that are new, over all slots; faults come and go (faults.py). Then
all that was done to the nodes ends, the cluster must be whole within a minute, every key is read, and

  answers    of each key must be what one server could have given (linear.py), but with async
  settled    with async: what was appended and acknowledged two seconds before a kill or another fault, or earlier, must be there
  copies     must be as their primaries: as the nodes find, and as READONLY reads them
  errors     may be MOVED, CLUSTERDOWN, TRYAGAIN, NOREPLICAS (not executed), INDOUBT, UNKEPT, and connections that end or time out

After a run that failed come the history of the key around what cannot be explained and the ends of the nodes' logs, and a new
cluster is started. Where the work of a check is bounded and not done, the run is undecided, which is not good. Links are cut
where network namespaces can be had; elsewhere this is said, and these faults are left out.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from chaos import faults  # noqa: E402
from chaos.linear import UNKNOWN  # noqa: E402
from chaos.one import Run  # noqa: E402
from failover.run import Cluster  # noqa: E402
from harness.process import COMMANDS  # noqa: E402
from harness.routing import GaveUp  # noqa: E402
from harness.wire import Closed  # noqa: E402
from leases.nodes import enter_network  # noqa: E402

LEVELS = ("quorum", "quorum+fsync", "async")
REPLICAS = 2
LOGS = ("--appendonly", "yes", "--appendfsync", "everysec")
# Of a run that failed: lines of what is wrong with it, and bytes of each log.
PROBLEMS_SHOWN, LOG_BYTES = 100, 6000


class Suite:
    """The cluster, as long as it is good, and what all runs have given."""

    def __init__(self, options, has_namespaces):
        self.options, self.has_namespaces, self.cluster = options, has_namespaces, None
        self.has_netem = has_namespaces and faults.has_netem()
        self.logs = LOGS if options.logs or options.acknowledge == "quorum+fsync" else ()
        self.expect = options.expect or options.acknowledge
        self.kinds = [kind for kind in options.faults.split(",") if has_namespaces or kind not in faults.LINK_KINDS]
        if options.acknowledge != "quorum+fsync":
            self.kinds = [kind for kind in self.kinds if kind != "all"]
        self.operations, self.unknown, self.silent, self.failed = 0, 0, 0, 0

    def run(self, number):
        if self.cluster is None:
            self.cluster = Cluster(self.options.server, self.options.nodes, REPLICAS, self.options.acknowledge, lambda _number: self.logs,
                                   has_namespaces=self.has_namespaces)
            self.cluster.has_netem = self.has_netem
        one = Run(self, number)
        try:
            one.run()
        except (RuntimeError, GaveUp, OSError, Closed, subprocess.SubprocessError) as error:
            one.problems.append("%s: %s" % (type(error).__name__, error))
        one.check()
        self.operations += one.history.count()
        self.unknown += one.history.count(UNKNOWN)
        self.silent = max(self.silent, one.silent)
        print("%3d: %s" % (number + 1, one.line()), flush=True)
        if one.problems:
            self.failed += 1
            self.tell(one)
            self.close()

    def tell(self, one):
        """Prints what is known of a run that failed, and keeps it where that is asked for."""
        lines = ["FAIL %s" % problem for problem in one.problems[:PROBLEMS_SHOWN]]
        lines += ["FAIL ... and %d more" % (len(one.problems) - PROBLEMS_SHOWN)] * (len(one.problems) > PROBLEMS_SHOWN)
        lines += ["fault from %.3f s for %.3f s: %s of %s, %s" % (
            one.began + fault.begin, fault.length, fault.kind, ", ".join(str(self.cluster.nodes[at].port) for at in fault.nodes), fault.how)
            for fault in one.chaos.done]
        print("".join("    %s\n" % line for line in lines))
        for node in self.cluster.nodes:
            print("-- log of node %d at %s, its end\n%s" % (node.number, node.address, node.server.log_tail(LOG_BYTES)))
        sys.stdout.flush()
        if self.options.save:
            self.save(one, lines)

    def save(self, one, lines):
        directory = os.path.join(self.options.save, "seed-%d" % one.seed)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "found"), "w") as file:
            file.write("\n".join([one.line()] + one.problems + lines + [""]))
        with open(os.path.join(directory, "history"), "w") as file:
            file.writelines("%s %r\n" % (key, operation) for key in one.keys for operation in one.history.operations[key])
        for node in self.cluster.nodes:
            with open(os.path.join(directory, "node-%d.log" % node.number), "w") as file:
                file.write(node.server.log_tail(1 << 24))

    def close(self):
        if self.cluster:
            self.cluster.close()
        self.cluster = None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="path of a starling binary")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10, help="of faults in each run")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--acknowledge", choices=LEVELS, default="quorum")
    parser.add_argument("--expect", choices=LEVELS, help="what is demanded; by default what that level promises")
    parser.add_argument("--logs", action="store_true", help="nodes have logs, at other levels than quorum+fsync too")
    parser.add_argument("--faults", default=",".join(faults.KINDS), help="some of them, separated by commas")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30), help="of the first run; the next has the next")
    parser.add_argument("--save", help="a directory, for histories and logs of runs that fail")
    return parser.parse_args()


def main():
    options = arguments()
    # Processes that stand still are ended however this one is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    has_namespaces = enter_network()
    subprocess.run([sys.executable, os.path.join(HERE, "test_linear.py")], check=True, stderr=subprocess.DEVNULL, timeout=120)
    started, suite = time.monotonic(), Suite(options, has_namespaces)
    if not has_namespaces:
        print("chaos: no network namespaces can be had here: no links are cut")
    print("chaos: seed %d, %d runs of %g s, %d nodes, %s; %s" % (
        options.seed, options.runs, options.seconds, options.nodes, options.acknowledge, ", ".join(suite.kinds)), flush=True)
    try:
        for number in range(options.runs):
            suite.run(number)
    finally:
        suite.close()
    print("chaos: %s: %d runs, %d not good; %d operations, %d unknown; longest time without an acknowledged write %.2f s; %.0f s" % (
        "FAIL" if suite.failed else "PASS", options.runs, suite.failed, suite.operations, suite.unknown, suite.silent,
        time.monotonic() - started))
    return 1 if suite.failed else 0


if __name__ == "__main__":
    sys.exit(main())
