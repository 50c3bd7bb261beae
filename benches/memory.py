#!/usr/bin/env python3
"""Bytes per key of Starling beside redis-server: growth of the resident set of a fresh server, divided by keys.

  memory.py                   1 M strings of 64 and of 8 bytes; 200 k hashes (of fields with deadlines too), sorted sets,
                              lists, sets and streams of 10; 2 k of them of 1,000; HyperLogLogs of 10 and of 10,000
  memory.py --scale 5         five times as many;  --shapes str64,str8  some of them
  BENCH_SERVERS=benches/peers.json PEERS=/where/they/are memory.py

Every shape gets a server of its own. Progress goes to stderr, the Markdown table to stdout.
"""
import argparse
import os
import sys
import time

from measure import HERE, contenders, load, markdown
from harness.wire import Connection  # measure.py has put redis-compat-tests on the path

# name: (keys at scale 1, value bytes, command, memcached command)
SHAPES = {
    "str64": (1_000_000, 64, "SET key:{s} {d}", "set key:{s} 0 0 64\\n{d}"),
    "str8": (1_000_000, 8, "SET key:{s} {d}", "set key:{s} 0 0 8\\n{d}"),
    "hash10": (200_000, 8, "HSET key:{s} " + " ".join("field%d {d}" % i for i in range(10)), None),
    "zset10": (200_000, 8, "ZADD key:{s} " + " ".join("{r} member:%d" % i for i in range(10)), None),
    "list10": (200_000, 8, "RPUSH key:{s} " + " ".join(["{d}"] * 10), None),
    "set10": (200_000, 8, "SADD key:{s} " + " ".join(["m{r}"] * 10), None),
    "ttl10": (200_000, 8, "HSETEX key:{s} EX 1000000 FIELDS 10 " + " ".join("field%d {d}" % i for i in range(10)), None),
    "stream10": (200_000, 8, "XADD key:{s} * field {d}", None),
    "hll10": (200_000, 8, "PFADD key:{s} " + " ".join(["{r}"] * 10), None),
    "hash1000": (2_000, 8, "HSET key:{s} " + " ".join("field%d {d}" % i for i in range(1000)), None),
    "ttl1000": (2_000, 8, "HSETEX key:{s} EX 1000000 FIELDS 1000 " + " ".join("field%d {d}" % i for i in range(1000)), None),
    "zset1000": (2_000, 8, "ZADD key:{s} " + " ".join("{r} member:%d" % i for i in range(1000)), None),
    "list1000": (2_000, 8, "RPUSH key:{s} " + " ".join(["{d}"] * 1000), None),
    "set1000": (2_000, 8, "SADD key:{s} " + " ".join(["m{r}"] * 1000), None),
    "stream1000": (2_000, 8, "XADD key:{s} * field {d}", None),
    "hll10000": (2_000, 8, "PFADD key:{s} " + " ".join(["{r}"] * 1000), None),
}
# Shapes whose command is sent so often to each key.
PASSES = {"stream10": 10, "stream1000": 1000, "hll10000": 10}


def settled_memory(server):
    """Resident bytes once they have stopped changing by more than 1 MB a second."""
    last, deadline = 0, time.monotonic() + 8
    while time.monotonic() < deadline:
        time.sleep(1)
        current = server.memory()
        if abs(current - last) < 1 << 20:
            return current
        last = current
    return last


def bytes_per_key(contender, shape, options):
    """The figure for one shape on a fresh server, or None where the server has no such type."""
    keys, size, command, memcached = SHAPES[shape]
    keys = int(keys * options.scale)
    command = command if contender.protocol == "redis" else memcached
    if not command:
        return None
    contender.start(options.server_cpus)
    try:
        before = settled_memory(contender.server)
        for number in range(PASSES.get(shape, 1)):
            figures = load(
                contender, ["1:" + command], options.client_cpus, P=32, c=16, n=keys, d=size, r=1_000_000_000, s=number)
            if "unknown command" in figures["err"]:
                print("%-10s %-7s has no such command" % (contender.name, shape), file=sys.stderr, flush=True)
                return None
            if figures["errors"]:
                raise RuntimeError("%s %s: %s" % (contender.name, shape, figures["err"]))
        growth = settled_memory(contender.server) - before
        if contender.protocol == "redis":
            connection = Connection(contender.server.port)
            held = connection.call("DBSIZE")
            connection.close()
            if held != keys:
                raise RuntimeError("%s %s: holds %s keys, %d were written" % (contender.name, shape, held, keys))
        print("%-10s %-7s %.1f" % (contender.name, shape, growth / keys), file=sys.stderr, flush=True)
        return growth / keys
    finally:
        contender.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=os.environ.get("BENCH_SERVERS") or os.path.join(HERE, "servers.json"))
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server-cpus", default="0")
    parser.add_argument("--client-cpus", default="1")
    options = parser.parse_args()
    servers, shapes = contenders(options.servers, options.only, options.threads), options.shapes.split(",")
    figures, failed = {}, False
    for shape in shapes:
        for contender in servers:
            try:
                figures[contender.name, shape] = bytes_per_key(contender, shape, options)
            except RuntimeError as error:
                print("FAILED " + str(error), file=sys.stderr)
                figures[contender.name, shape], failed = None, True
    reference = servers[0].name
    rows = []
    for contender in servers:
        row = [contender.name]
        for shape in shapes:
            value, base = figures[contender.name, shape], figures[reference, shape]
            row.append("-" if value is None else "%.0f" % value if not base else "%.0f (%.2f)" % (value, value / base))
        rows.append(row)
    print("Bytes of resident memory per key, 14-byte keys; in brackets the ratio to %s.\n" % reference)
    print(markdown(["server"] + shapes, rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
