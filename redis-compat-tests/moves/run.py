#!/usr/bin/env python3
"""Slots that move under load: a node joins a cluster of three, then two drain, and nothing may be lost, doubled or refused.

  run.py                          20,000 keys against target/release/starling
  run.py --keys 100000            the real size
  run.py --server-cmd redis       against redis-server and redis-cli --cluster: checks this suite
  run.py --drain newest           only the newcomer leaves; by default it is the second, after the node that formed the
                                  cluster, with which the lead of the raft group goes

Keys of all types with and without deadlines are written, then workers (see load.py) read and write while the number
of nodes changes. After each change every key must be on exactly one node, its slot's owner; every acknowledged write
must be readable; the only errors on the wire may be MOVED (and connections that the leaving node closes). The seed is
printed; it decides the data and the requests, not their timing.
"""
import argparse
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.process import starling  # noqa: E402
from harness.routing import GaveUp  # noqa: E402
from harness.topology import Cluster, primaries  # noqa: E402
from moves import model as data  # noqa: E402
from moves.load import Load  # noqa: E402

# Seconds of load before and after a change, for comparison.
AROUND_SECONDS = 2
PROBLEMS_SHOWN = 10


def forbidden(seen, cluster, leaving):
    """What was on the wire and must not be, for a server that moves slots without ASK."""
    problems = []
    for kind, count in sorted(seen.items()):
        word, _, port = kind.partition(" ")
        allowed = kind in ("MOVED", "broken WATCH") or (word in ("closed", "refused") and port == str(leaving))
            # redis-server moves key by key, and a node that left owns nothing: these belong to it, and clients cope.
        if cluster.redis and word in ("ASK", "TRYAGAIN", "CLUSTERDOWN", "redirect"):
            allowed = True
        if not allowed:
            problems.append("%d x %s" % (count, kind))
    return problems


def change(cluster, model, options, name, action, leaving=None):
    """Run one change of the cluster under load, print its figures, and return what is wrong."""
    print("== %s under load" % name, flush=True)
    load = Load(cluster.ports, options.workers, "%s/%s" % (options.seed, name), model)
    problems, marks = [], [time.perf_counter()]
    try:
        time.sleep(AROUND_SECONDS)
        marks.append(time.perf_counter())
        try:
            seconds = action()
            print("    settled after %.1f s" % seconds)
        except RuntimeError as error:
            problems.append(str(error))
        marks.append(time.perf_counter())
        time.sleep(AROUND_SECONDS)
        marks.append(time.perf_counter())
    finally:
        result = load.stop()
    for phase, first, last in zip(("before", "during", "after"), marks, marks[1:]):
        print("    %-7s %s" % (phase, result.latency(first, last)))
    print("    on the wire: %s; most redirects of one request: %d" % (
        ", ".join("%s %d" % pair for pair in sorted(result.seen.items())) or "no errors", result.hops))
    if len(result.requests) < 10 and not result.problems:
        problems.append("the workers did little: %s" % dict(result.requests))
    problems += result.problems + forbidden(result.seen, cluster, leaving)
    try:
        lines, wrong = data.placement(cluster.ports, model)
        print("\n".join(lines))
        problems += wrong
        problems += data.verify(cluster.ports, model)
    except GaveUp as error:
        problems.append(str(error))
    for problem in problems[:PROBLEMS_SHOWN]:
        print("    FAIL %s" % problem)
    if len(problems) > PROBLEMS_SHOWN:
        print("    ... and %d more" % (len(problems) - PROBLEMS_SHOWN))
    sys.stdout.flush()
    return problems


def run(options):
    cluster, problems = Cluster(options.server_cmd), []
    try:
        print("three nodes: %s" % primaries(cluster.ports[0]))
        model = data.dataset(options.keys, options.seed)
        started = time.monotonic()
        data.fill(cluster.ports, model)
        print("%d keys written in %.1f s" % (len(model), time.monotonic() - started), flush=True)
        problems += change(cluster, model, options, "join", cluster.join)
        for which in ["first", "newest"] if options.drain == "both" else [options.drain]:
            if not problems:
                index = 0 if which == "first" else -1
                leaving, name = cluster.servers[index].port, "drain of the " + which
                problems += change(cluster, model, options, name, lambda: cluster.drain(index), leaving)
        if problems:
            for server in cluster.servers:
                print("-- log of %d, its end\n%s" % (server.port, server.log_tail(1500)))
        return len(model), problems
    finally:
        cluster.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-cmd", default="starling", help="a short name or a command line with {port} and {dir}")
    parser.add_argument("--server", help="path of a starling binary")
    parser.add_argument("--keys", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--drain", choices=("both", "newest", "first"), default="both")
    options = parser.parse_args()
    if options.server:
        options.server_cmd = starling(options.server)
    print("moves: seed %d, %d keys, %d workers" % (options.seed, options.keys, options.workers), flush=True)
    started = time.monotonic()
    try:
        keys, problems = run(options)
    except RuntimeError as error:
        keys, problems = 0, [error]
        print("FAIL %s" % error)
    print("moves: %s: %d keys at the end, %d problems, %.0f s" % (
        "FAIL" if problems else "PASS", keys, len(problems), time.monotonic() - started))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
