#!/usr/bin/env python3
"""What copies and acknowledgements cost: SET of 64 bytes at one of three nodes, beside a primary of Redis's family with replicas.

  copies.py                               starling and redis-server; Valkey where PEERS says it is built
  copies.py --pipelines 16 --rounds 9     fewer pipelines, more rounds

Starling: three nodes of one worker each, all requests to slots of the first; without copies, with one and two (`async`), and with two
copies and `acknowledge quorum` and `quorum+fsync` (logs, appendfsync everysec). Redis and Valkey: a primary alone, one with a replica, and
one with a replica where each pipeline ends with WAIT 1 0, which is what stands beside `quorum`. Placed on processors and measured
as throughput.py does it: nodes share cpu 0, the generator has cpu 1. CPU is that of the node that is written to, and of all.
A WAIT is not counted as a request.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import time

from measure import Contender, load, markdown
from harness.process import Server
from harness.wire import Connection

SLOTS = 16384
SHARED = " --port {port} --dir {dir} --bind 127.0.0.1 --save '' "
STARLING = "{repository}/target/release/starling --threads 1" + SHARED
# name: (words of the node that creates the cluster, words of all)
MODES = {
    "no copies": (["--replicas", "0"], []), "1 copy": (["--replicas", "1"], []), "2 copies": (["--replicas", "2"], []),
    "quorum": (["--replicas", "2", "--acknowledge", "quorum"], []),
    "quorum+fsync": (["--replicas", "2", "--acknowledge", "quorum+fsync"], ["--appendonly", "yes", "--appendfsync", "everysec"]),
}
PEERS = {"redis": "redis-server" + SHARED, "valkey": "{peers}/valkey/src/valkey-server" + SHARED}
SETTLE_SECONDS = 60


def call(server, *words):
    connection = Connection(server.port)
    try:
        return connection.call(*words)
    finally:
        connection.close()


def until(condition):
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + SETTLE_SECONDS:
            raise RuntimeError("it does not settle")
        time.sleep(0.05)


class Cluster:
    """Three nodes; `key`: a tag whose slot the first has; of two letters, for those of one are places of the generator."""

    def __init__(self, mode, cpus):
        creates, shared = MODES[mode]
        self.last, self.servers = None, []
        for number in range(3):
            words = ["--join", "127.0.0.1:%d" % self.servers[0].port] if number else ["--cluster"] + creates
            self.servers.append(Contender({"name": mode, "command": STARLING}, 1).command)
            self.servers[-1] = Server(self.servers[-1], words + shared, cpus=cpus, places={"threads": "1"})
            self.servers[-1].wait_ready()
        copies = SLOTS * int(creates[1])
        until(lambda: all(self.is_whole(server, copies) for server in self.servers))
        connection = Connection(self.servers[0].port)
        self.key = next("{%d}" % number for number in range(10, 1000) if connection.call("SET", "{%d}" % number, "") == b"OK")

    @staticmethod
    def is_whole(server, copies):
        info = call(server, "CLUSTER", "INFO").decode()
        owned = {}
        for first, last, primary, *_copies in call(server, "CLUSTER", "SLOTS"):
            owned[primary[1]] = owned.get(primary[1], 0) + last - first + 1
        is_level = len(owned) == 3 and all(abs(slots - SLOTS / 3) < SLOTS / 300 for slots in owned.values())
        return is_level and "starling_copies_ready:%d\r" % copies in info and "cluster_slots_ok:16384\r" in info


class Pair:
    """A primary of Redis's family, with a replica or without, and what ends each pipeline."""

    def __init__(self, command, has_replica, last, cpus):
        self.last, self.key = last, ""
        self.servers = [Server(command, cpus=cpus)]
        self.servers[0].wait_ready()
        if has_replica:
            self.servers.append(Server(command, ["--replicaof", "127.0.0.1", str(self.servers[0].port)], cpus=cpus))
            self.servers[1].wait_ready()
            until(lambda: b"master_link_status:up" in call(self.servers[1], "INFO", "replication"))


def contenders(options):
    """(name, mode, how to start it)."""
    found = [("starling", mode, lambda mode=mode: Cluster(mode, options.server_cpus)) for mode in MODES]
    for name, command in PEERS.items():
        command = command.replace("{peers}", os.environ.get("PEERS", ""))
        if not shutil.which(command.split()[0]):
            print("left out: %s, it is not there" % name, file=sys.stderr)
            continue
        for mode, has_replica, last in (("no copies", False, None), ("1 copy", True, None), ("WAIT 1", True, "1:WAIT 1 0")):
            found.append((name, mode, lambda command=command, has_replica=has_replica, last=last: Pair(command, has_replica, last, options.server_cpus)))
    return [one for one in found if not options.only or one[0] in options.only.split(",")]


class Target:
    """What `load` sends to."""

    protocol, name = "redis", "target"

    def __init__(self, server):
        self.server = server


def measure(place, pipeline, connections, options, number):
    target, query = Target(place.servers[0]), "1:SET %skey:{r} {d}" % place.key
    shared = {"c": connections, "P": pipeline + bool(place.last), "r": options.keys, "d": 64}
    if place.last:
        shared["l"] = place.last
    load(target, [query], options.client_cpus, t=0.3, s=99, **shared)
    before = [server.cpu_seconds() for server in place.servers]
    figures = load(target, [query], options.client_cpus, t=options.seconds, s=number + 1, **shared)
    spent = [server.cpu_seconds() - earlier for server, earlier in zip(place.servers, before)]
    if figures["errors"]:
        raise RuntimeError("%d errors: %s" % (figures["errors"], figures["err"]))
    writes = figures["requests"] * pipeline / shared["P"]
    return {"rps": figures["rps"] * pipeline / shared["P"], "primary_us": spent[0] / writes * 1e6, "all_us": sum(spent) / writes * 1e6,
            "p50_us": figures["p50_us"], "p99_us": figures["p99_us"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="starling, redis, valkey")
    parser.add_argument("--pipelines", default="1,16")
    parser.add_argument("--connections", default="50", help="numbers of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--server-cpus", default="0")
    parser.add_argument("--client-cpus", default="1")
    options = parser.parse_args()
    rows, base = [], {}
    places = [(connections, pipeline) for connections in map(int, options.connections.split(",")) for pipeline in map(int, options.pipelines.split(","))]
    for name, mode, start in contenders(options):
        place = start()
        try:
            for connections, pipeline in places:
                runs = [measure(place, pipeline, connections, options, number) for number in range(options.rounds)]
                figures = {field: statistics.median(run[field] for run in runs) for field in runs[0]}
                spread = 100 * (max(run["primary_us"] for run in runs) / min(run["primary_us"] for run in runs) - 1)
                without = base.setdefault((name, connections, pipeline), figures)
                print("%s %s c%d P%d: %s" % (name, mode, connections, pipeline, json.dumps(figures)), file=sys.stderr, flush=True)
                rows.append((connections, pipeline, name, mode, "%.0f" % (figures["rps"] / 1e3), "%.2f" % figures["primary_us"],
                             "%.2f" % (figures["primary_us"] / without["primary_us"]), "%.2f" % figures["all_us"], "%.0f" % spread,
                             "%.0f" % figures["p50_us"], "%.0f" % figures["p99_us"]))
        finally:
            for server in place.servers:
                server.close()
    rows.sort(key=lambda row: row[:2])
    print(markdown(["clients", "P", "server", "copies", "k SET/s", "primary us/SET", "x no copies", "all nodes us/SET", "spread %", "p50 us", "p99 us"], rows))


if __name__ == "__main__":
    main()
