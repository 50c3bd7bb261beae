#!/usr/bin/env python3
"""What went wrong once, as small cases with the right answer: against one node, three nodes and a proxy listener.

  faults/run.py                                   everything, in about a minute
  faults/run.py --only conversations,answers      some of the parts
  STARLING_ORDER_ROUNDS=100000 faults/run.py --only answers    the long form of the races

Where redis-server has an answer of its own, it is asked, and its reply is the right one.
"""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from faults import answers, bounds, conversations, first_minutes, owner_gone  # noqa: E402
from faults.places import Places  # noqa: E402
from harness.process import COMMANDS  # noqa: E402

# In the order in which they run.
PARTS = {"conversations": conversations, "answers": answers, "bounds": bounds, "first_minutes": first_minutes,
         "owner_gone": owner_gone}


class Check:
    """Runs cases: each returns what is wrong, or None. Prints those that fail, and those that take long when asked."""

    def __init__(self, verbose):
        self.passed, self.failed, self.verbose = 0, 0, verbose

    def __call__(self, place, name, case):
        started = time.monotonic()
        try:
            problem = case()
        except Exception as error:  # a closed connection, a reply that does not come
            problem = "%s: %s" % (type(error).__name__, error)
        self.passed += problem is None
        self.failed += problem is not None
        if problem is not None:
            print("FAIL %s: %s: %s" % (place, name, problem), flush=True)
        elif self.verbose:
            print("good %s: %s, %.2f s" % (place, name, time.monotonic() - started), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="path of the binary")
    parser.add_argument("--only", default="", help="parts, separated by commas: %s" % ", ".join(PARTS))
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(PARTS)
    binary = os.path.abspath(options.server) if options.server else COMMANDS["starling"].split()[0]
    check, started = Check(options.verbose), time.monotonic()
    places = Places(binary)
    try:
        for name in chosen:
            PARTS[name].run(places, check)
        for topology in places.topologies:
            for server in topology.servers[:2]:
                check("the end", "port %d is alive" % server.port, lambda: None if server.alive() else server.log_tail())
    finally:
        places.close()
    print("faults: %d cases passed, %d failed, %.1f s" % (check.passed, check.failed, time.monotonic() - started))
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
