#!/usr/bin/env python3
"""Throughput, latency and server CPU per request of Starling beside redis-server.

  throughput.py                       GET and SET, 64 bytes, pipelines of 1, 16 and 128, 5 interleaved rounds; GET with
                                      maxmemory set, and PING beside a client that floods the server with SETs
  throughput.py --cases core          also 1 KB values and a mix;  --cases commands  other commands
  BENCH_SERVERS=benches/peers.json PEERS=/where/they/are throughput.py

All servers stay up; in every round each case visits each server in turn while the others are stopped. The server runs
on cpu 0, the generator on cpu 1. Progress goes to stderr, the Markdown table of medians to stdout. README.md says how
to read it.
"""
import argparse
import json
import os
import re
import statistics
import sys
import time

from measure import HERE, contenders, flood, load, markdown

GET, SET = "GET key:{r}", "SET key:{r} {d}"
MEMCACHED_GET, MEMCACHED_SET = "get key:{r}", "set key:{r} 0 0 %d\\n{d}"


def key_cases(keys):
    """GET, SET and a mix over `keys` keys, by value size and pipeline."""
    found = {}
    for size in (64, 1024):
        store = MEMCACHED_SET % size
        for pipeline in (1, 16, 128):
            place = "/%dB/P%d" % (size, pipeline)
            shared = {"keyspace": keys, "size": size, "pipeline": pipeline}
            found["GET" + place] = dict(shared, queries=["1:" + GET], memcached=["1:" + MEMCACHED_GET])
            found["SET" + place] = dict(shared, queries=["1:" + SET], memcached=["1:" + store])
            found["SET1:GET10" + place] = dict(shared, queries=["1:" + SET, "10:" + GET], memcached=["1:" + store, "10:" + MEMCACHED_GET])
    return found


def command_cases(keys):
    """Commands of all types; they have no memcached counterpart."""
    commands = {
        "MSET10": {"query": "MSET " + " ".join(["key:{r} {d}"] * 10), "keyspace": keys},
        "INCR": {"query": "INCR counter:{r}"}, "LPUSH": {"query": "LPUSH mylist {d}", "before": ["DEL mylist"]},
        "HSET": {"query": "HSET myhash element:{r} {d}"}, "ZADD": {"query": "ZADD myzset {r} element:{r}"},
        "SADD": {"query": "SADD myset element:{r}"}, "PING": {"query": "PING"},
        "LRANGE100": {"query": "LRANGE rlist 0 99", "before": ["DEL rlist", "RPUSH rlist " + " ".join(["x" * 64] * 100)]},
    }
    hundred = " ".join("member:%d" % number for number in range(100))
    pairs = " ".join("field:%d value:%d" % (number, number) for number in range(20))
    scored = " ".join("%d member:%d" % (number, number) for number in range(50))
    places = " ".join("%f %f place:%d" % (number / 10, number / 20, number) for number in range(40))
    entries = ["XADD xlist * field value"] * 100
    more = {
        "SETRANGE": {"query": "SETRANGE key:{r} 10 {d}"}, "GETRANGE": {"query": "GETRANGE long 100 199", "before": ["SETRANGE long 999 x"]},
        "SETBIT": {"query": "SETBIT bits 12345 1", "before": ["DEL bits"]}, "BITCOUNT": {"query": "BITCOUNT long", "before": ["SETRANGE long 999 x"]},
        "LMOVE": {"query": "LMOVE ring ring LEFT RIGHT", "before": ["DEL ring", "RPUSH ring " + hundred]},
        "LINDEX": {"query": "LINDEX ring 50", "before": ["DEL ring", "RPUSH ring " + hundred]},
        "HGET": {"query": "HGET small field:7", "before": ["DEL small", "HSET small " + pairs]},
        "HGETALL": {"query": "HGETALL small", "before": ["DEL small", "HSET small " + pairs]},
        "HINCRBY": {"query": "HINCRBY counts field:{r} 1"}, "SISMEMBER": {"query": "SISMEMBER names member:7", "before": ["SADD names " + hundred]},
        "SINTER": {"query": "SINTER names others", "before": ["SADD names " + hundred, "SADD others member:1 member:2 x y z"]},
        "SRANDMEMBER": {"query": "SRANDMEMBER names 3", "before": ["SADD names " + hundred]},
        "ZSCORE": {"query": "ZSCORE board member:7", "before": ["ZADD board " + scored]},
        "ZRANGE50": {"query": "ZRANGE board 0 49 WITHSCORES", "before": ["ZADD board " + scored]},
        "ZRANGEBYSCORE": {"query": "ZRANGEBYSCORE board 10 20", "before": ["ZADD board " + scored]},
        "ZRANK": {"query": "ZRANK myzset element:{r}"}, "ZINCRBY": {"query": "ZINCRBY myzset 1 element:{r}"},
        "XADD": {"query": "XADD events MAXLEN ~ 10000 * field {d}", "before": ["DEL events"]},
        "XRANGE100": {"query": "XRANGE xlist - + COUNT 100", "before": ["DEL xlist"] + entries},
        "PFADD": {"query": "PFADD visitors {r}", "before": ["DEL visitors"]}, "PFCOUNT": {"query": "PFCOUNT visitors"},
        "GEOADD": {"query": "GEOADD map 13.4 38.1 place:{r}", "before": ["DEL map"]},
        "GEOSEARCH": {"query": "GEOSEARCH towns FROMLONLAT 2 1 BYRADIUS 200 km ASC COUNT 10", "before": ["GEOADD towns " + places]},
        "EXPIRE": {"query": "EXPIRE key:{r} 1000"}, "TTL": {"query": "TTL key:{r}"}, "EXISTS": {"query": "EXISTS key:{r}"},
        "DUMP": {"query": "DUMP small", "before": ["DEL small", "HSET small " + pairs]},
        "SORT": {"query": "SORT numbers LIMIT 0 10", "before": ["DEL numbers", "RPUSH numbers " + " ".join(map(str, range(100, 0, -1)))]},
    }
    found = {"%s/P%d" % (name, pipeline): case for name, case in commands.items() for pipeline in (1, 16)}
    found.update({"%s/P16" % name: case for name, case in more.items()})
    return {name: {
        "queries": ["1:" + case["query"]], "memcached": None, "keyspace": case.get("keyspace", 100_000), "size": 64,
        "pipeline": int(name.rpartition("P")[2]), "before": case.get("before", [])} for name, case in found.items()}


def condition_cases(keys):
    """Small requests of a server with a memory limit, of one that another client floods with writes, and of one whose log is
    read."""
    get = {"queries": ["1:" + GET], "memcached": None, "keyspace": keys, "size": 64, "pipeline": 1}
    limit = {"before": ["CONFIG SET maxmemory 64gb"], "after": ["CONFIG SET maxmemory 0"]}
    # One connection and few requests under way: what is measured is how long a small request waits for its turn.
    beside = {"queries": ["1:PING"], "memcached": None, "keyspace": keys, "size": 64, "pipeline": 1, "connections": 1, "flood": SET}
    # Starling's own: a reader of its log that only counts.
    reader = {"before": ["DEBUG LOG-READER ON"], "after": ["DEBUG LOG-READER OFF"], "queries": ["1:" + SET]}
    read = {"SET/64B/P%d/reader" % pipeline: dict(get, **reader, pipeline=pipeline) for pipeline in (16, 128)}
    return {"GET/64B/P1/maxmemory": dict(get, **limit), "PING/P1/flood": beside, **read}


def chosen_cases(options):
    keyed, commands, conditions = key_cases(options.keys), command_cases(options.keys), condition_cases(options.keys)
    usual = [name for name in keyed if re.match("(GET|SET)/64B/", name)] + [name for name in conditions if "reader" not in name]
    groups = {"default": usual, "core": list(keyed), "commands": list(commands), "conditions": list(conditions)}
    every = dict(keyed, **commands, **conditions)
    names = [name for group in options.cases.split(",") for name in groups.get(group, [group])]
    unknown = [name for name in names if name not in every]
    if unknown:
        raise SystemExit("unknown cases: %s; known: %s, %s" % (", ".join(unknown), ", ".join(groups), ", ".join(every)))
    return {name: every[name] for name in names}


def measure(contender, name, case, options, round_number):
    """The figures of one round of one case on one server."""
    queries = case["queries"] if contender.protocol == "redis" else case["memcached"]
    if not queries:
        return None
    if "key:{r}" in case["queries"][0] and contender.filled_bytes != case["size"]:
        fill = "SET key:{s} {d}" if contender.protocol == "redis" else MEMCACHED_SET.replace("{r}", "{s}") % case["size"]
        load(contender, ["1:" + fill], options.client_cpus, P=64, n=options.keys, d=case["size"])
        contender.filled_bytes = case["size"]
    for command in case.get("before", []):
        load(contender, ["1:" + command], options.client_cpus, n=1, c=1)
    connections = case.get("connections", options.connections)
    shared = {"c": connections, "P": case["pipeline"], "r": case["keyspace"], "d": case["size"]}
    load(contender, queries, options.client_cpus, t=options.warm_up, s=99, **shared)
    with flood(contender, case.get("flood"), options.client_cpus, c=1, P=512, r=case["keyspace"], d=case["size"]):
        before = contender.server.cpu_seconds()
        figures = load(contender, queries, options.client_cpus, t=options.seconds, s=round_number + 1, **shared)
        spent = contender.server.cpu_seconds() - before
    for command in case.get("after", []):
        load(contender, ["1:" + command], options.client_cpus, n=1, c=1)
    if figures["errors"]:
        raise RuntimeError("%s %s: %d errors: %s" % (name, contender.name, figures["errors"], figures["err"]))
    figures["server_us"] = spent / figures["requests"] * 1e6
    figures["server_util"] = spent / figures["seconds"]
    return figures


def rounds(servers, cases, options):
    """{case: {server: [figures of each round]}}. The order of servers turns from round to round."""
    results = {}
    for name, case in cases.items():
        for number in range(options.rounds):
            for contender in servers[number % len(servers):] + servers[:number % len(servers)]:
                contender.resume()
                figures = measure(contender, name, case, options, number)
                contender.pause()
                if figures:
                    results.setdefault(name, {}).setdefault(contender.name, []).append(figures)
        summary = ["%s %.3f us, %.0f k/s" % (server, median(runs, "server_us"), median(runs, "rps") / 1e3) for server, runs in results[name].items()]
        print("%-16s %s" % (name, "   ".join(summary)), file=sys.stderr, flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(results, file, indent=1)
    return results


def median(runs, field):
    return statistics.median(run[field] for run in runs)


def table(results, names):
    reference, rows = names[0], []
    for case, by_server in results.items():
        for name in names:
            runs = by_server.get(name)
            if not runs:
                continue
            busy = (median(runs, "server_util"), median(runs, "client_util"))
            spread = 100 * (max(run["server_us"] for run in runs) / min(run["server_us"] for run in runs) - 1)
            row = [case, name, "%.0f" % (median(runs, "rps") / 1e3), "%.3f" % median(runs, "server_us"), "%.0f" % spread]
            row += ["%.0f" % median(runs, field) for field in ("p50_us", "p99_us", "p999_us")]
            row.append("server" if busy[0] > 0.95 else "generator" if busy[1] > 0.95 else "-")
            other = by_server.get(reference)
            row += ["%.2f" % (median(runs, field) / median(other, field)) if other else "" for field in ("rps", "server_us", "p99_us")]
            rows.append(row)
    return markdown(["case", "server", "k req/s", "CPU us/req", "spread %", "p50 us", "p99 us", "p99.9 us", "limit",
                     "x req/s", "x CPU", "x p99"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=os.environ.get("BENCH_SERVERS") or os.path.join(HERE, "servers.json"))
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--cases", default="default", help="default, core, commands, conditions, or names such as GET/64B/P16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="{threads} in the commands of the servers file")
    parser.add_argument("--server-cpus", default="0")
    parser.add_argument("--client-cpus", default="1")
    parser.add_argument("--json", default="", help="also write every figure of every round to this file")
    options = parser.parse_args()
    cases = chosen_cases(options)
    servers = contenders(options.servers, options.only, options.threads)
    started = time.monotonic()
    try:
        for contender in servers:
            contender.start(options.server_cpus)
            contender.pause()
        results = rounds(servers, cases, options)
    finally:
        for contender in servers:
            contender.close()
    print("Medians of %d interleaved rounds of %.1f s, %d keys, %d connections, %.0f s in all. Ratios are to %s.\n" % (
        options.rounds, options.seconds, options.keys, options.connections, time.monotonic() - started, servers[0].name))
    print(table(results, [contender.name for contender in servers]))


if __name__ == "__main__":
    main()
