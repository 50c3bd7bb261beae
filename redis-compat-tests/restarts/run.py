#!/usr/bin/env python3
"""Nodes end and start again, one and all: what is there then, and whether the cluster is whole.

  run.py                       each case once against target/release/starling, three nodes, two copies of every slot
  run.py --rounds 10           each case ten times
  run.py --cases one,all       some of them
  run.py --seed 7              the same choices again

Writers set ever greater numbers on 900 keys over all slots. In clusters without logs:

  one         kill -9 of a node, which starts again on its directory: a copy of everything again
  wiped       the same, on an empty directory: a new node; the former one is down until CLUSTER FORGET
  cloned      a process is started on a copy of the directory of a node that runs: it does not start, and nothing is lost
  all         kill -9 of all: all start empty, and every slot is served

With logs (`appendfsync everysec`):

  all-log     kill -9 of all: everything is back that was acknowledged two seconds before, or earlier
  moved       all end (SIGTERM) and start again at other ports, each told where one of the others is now: everything is back
  moved-kill  the same after kill -9, as all-log
  cloned-log  as cloned
  away        kill -9 of a node, which starts again after 30 s: it is sent only slots in which something was written meanwhile

  away-60, still-5, still-60 (only where they are asked for): the same after 60 s; or the node stands still, for 5 or 60 s

With logs, and `acknowledge quorum+fsync`:

  all-fsync   kill -9 of all: everything is back that was acknowledged, to the last moment
  twice       the same, and all are killed again while elections are under way

With five nodes, and only where it is asked for:

  rolling     all are restarted one after the other (SIGTERM) under load by redis-py's cluster client and by plain clients at
              proxy listeners: no command fails, no key is lost, and the longest wait is printed

Where one node is killed, everything has to be there that was acknowledged a second before, or earlier. At the end of each case all copies are ready, none
differs from its primary, and keys in slots everywhere can be written, read and deleted. Times are printed, never judged. The seed
decides whose turn it is, not what the machine does with it.
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
from clients.prepare import python_environment  # noqa: E402
from harness.process import COMMANDS  # noqa: E402
from harness.routing import GaveUp  # noqa: E402
from harness.wire import Closed  # noqa: E402
from restarts import cases  # noqa: E402
from restarts.clone import cloned  # noqa: E402
from restarts.nodes import Restartable  # noqa: E402

# By whether nodes keep logs: each kind in one cluster, in this order.
CASES = {
    "no": {"one": cases.one, "wiped": cases.wiped, "cloned": cloned, "all": cases.everyone},
    "yes": {"all-log": cases.everyone, "moved": cases.moved(signal.SIGTERM), "moved-kill": cases.moved(signal.SIGKILL),
            "cloned-log": cloned, "away": cases.away(30)},
    "fsync": {"all-fsync": cases.everyone, "twice": cases.twice},
}
# Only where they are asked for.
CASES["yes"].update({"away-60": cases.away(60), "still-5": cases.away(5, stops=True), "still-60": cases.away(60, stops=True)})
DEFAULT = [name for known in CASES.values() for name in known if not name.endswith(("-5", "-60"))]
# With 10000 more they are below those that outgoing connections have: a node that starts again must find its port free.
PORTS = (11000, 22000)
PROBLEMS_SHOWN, LOG_BYTES = 10, 3000


def attempt(name, case, cluster, seed, number):
    """Runs a case and prints a line; whether it was good."""
    started, problems, line = time.monotonic(), [], "not done"
    try:
        line = case(cluster, random.Random("%d/%s/%d" % (seed, name, number)), problems)
    except (RuntimeError, OSError, Closed, GaveUp, KeyError, subprocess.TimeoutExpired) as error:
        problems.append("%s: %s" % (type(error).__name__, error))
    print("%-10s %2d: %s: %s; %.0f s" % (name, number + 1, "FAIL" if problems else "good", line, time.monotonic() - started), flush=True)
    for problem in problems[:PROBLEMS_SHOWN]:
        print("    FAIL %s" % problem, flush=True)
    if problems:
        for node in cluster.nodes:
            print("-- log of node %d, its end\n%s" % (node.number, node.server.log_tail(LOG_BYTES)), flush=True)
    return not problems


def clusters(options):
    """(how a cluster is made, its cases) of all that are asked for."""
    for log, known in CASES.items():
        yield lambda: Restartable(options, log), {name: case for name, case in known.items() if name in options.cases}
    if "rolling" in options.cases:
        try:
            import redis  # noqa: F401
        except ImportError:
            interpreter = python_environment()
            os.execv(interpreter, [interpreter] + sys.argv)
        from restarts.rolling import Proxies, rolling
        yield lambda: Proxies(options), {"rolling": rolling}


def run(options):
    """(cases that were run, how many of them were not good)."""
    count, failed = 0, 0
    for make, chosen in clusters(options):
        if not chosen:
            continue
        cluster = make()
        try:
            for number in range(options.rounds):
                for name, case in chosen.items():
                    count += 1
                    # What comes after a case that failed says little.
                    if not attempt(name, case, cluster, options.seed, number):
                        return count, failed + 1
        finally:
            cluster.close()
    return count, failed


def port_range(text):
    low, high = map(int, text.split("-"))
    return low, high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="path of a starling binary")
    parser.add_argument("--rounds", type=int, default=1, help="of each case")
    parser.add_argument("--cases", default=",".join(DEFAULT), help="some, separated by commas")
    parser.add_argument("--keys", type=int, default=20000, help="keys that are there besides those of the load")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--ports", type=port_range, default=PORTS, help="LOW-HIGH: client ports; 10000 more are used too")
    options = parser.parse_args()
    options.cases = options.cases.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("restarts: seed %d, %d rounds of %s" % (options.seed, options.rounds, ", ".join(options.cases)), flush=True)
    started = time.monotonic()
    count, failed = run(options)
    print("restarts: %s: %d cases, %d failed, %.0f s" % ("FAIL" if failed or not count else "PASS", count, failed, time.monotonic() - started))
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
