#!/usr/bin/env python3
"""Stock clients doing real work: redis-cli, redis-benchmark, redis-py, ioredis, node-redis, the redis crate of Rust.

  run.py                        against target/release/starling
  run.py --server-cmd redis     against redis-server: checks this suite
  run.py --only redis-py        one client
  run.py --nodes 1              only one node, or only --nodes 3

Against one node; against a cluster of three; and all cluster clients at once while a node joins and leaves again. Everyday
recipes (queue, lock, leaderboard, ...) also through nodes that forward, for clients that know no cluster. Installs
what is missing (see prepare.py). Every case reads back what it wrote; a client that stops before its last case is a
failure. Ends with counts, and exits 0 only when nothing failed.
"""
import argparse
import os
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import prepare  # noqa: E402
import tools  # noqa: E402
from harness.process import starling  # noqa: E402
from harness.topology import Cluster, Single, primaries  # noqa: E402

CLIENT_SECONDS = 180
# How long a working client may take to come to its end once it is told to.
END_SECONDS = 30


def judge(client, text, errors, count):
    """Count the lines `ok name` and `not ok name # why` of a client; the last line must be `done`."""
    lines = text.splitlines()
    for line in lines:
        if line.startswith("ok "):
            count.case(client, line[3:])
        elif line.startswith("not ok "):
            name, _, why = line[7:].partition(" # ")
            count.case(client, name, why or "failed")
    if not lines or lines[-1] != "done":
        count.case(client, "all", "stopped early: %s" % (text + errors)[-800:])


def program(words, environment, count, client):
    """Run a client program to its end."""
    try:
        done = subprocess.run(words, env=dict(os.environ, **environment), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired as error:
        count.case(client, "all", "does not end; so far: %s" % (error.stdout or b"")[-500:])
        return
    judge(client, done.stdout, done.stderr, count)


class Worker:
    """A client program that works until its standard input ends."""

    def __init__(self, name, words, environment):
        self.name = name
        self.process = subprocess.Popen(words, env=dict(os.environ, **environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        guard = threading.Timer(CLIENT_SECONDS, self.process.kill)
        guard.start()
        self.first = self.process.stdout.readline()
        guard.cancel()

    def end(self, count):
        try:
            text, errors = self.process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            text, errors = self.process.communicate()
            errors += "\nit did not end within %d s: a request was never answered" % END_SECONDS
        judge(self.name, self.first + text, errors, count)


def on_servers(servers, clients, environment, count, where):
    """Run the clients one after the other; a callable is a tool, anything else the words of a program."""
    for name, client in clients.items():
        before = count.passed, count.failed
        if callable(client):
            client(servers, count)
        else:
            program(client[0], dict(client[1], **environment, ADDRESSES=",".join(servers.addresses)), count, name)
        print("%-10s %-18s %d passed, %d failed" % (where, name, count.passed - before[0], count.failed - before[1]), flush=True)
        if not servers.alive():
            count.case(name, "server", "ended: " + "\n".join(server.log_tail() for server in servers.servers if not server.alive()))
            return


def while_slots_move(cluster, clients, count):
    """All programs work at once while a node joins, and while it leaves again."""
    workers = []
    before = count.passed, count.failed
    for name, client in clients.items():
        if not callable(client):
            workers.append(Worker(name, client[0], dict(client[1], MODE="work", ADDRESSES=",".join(cluster.addresses))))
    try:
        for name, change in (("a node joins", cluster.join), ("a node drains", cluster.drain)):
            seconds = change()
            print("%-10s %s: settled after %.1f s, slots %s" % ("moving", name, seconds, sorted(primaries(cluster.ports[0]).values())), flush=True)
    except RuntimeError as error:
        count.case("cluster", "join and drain", str(error))
    for worker in workers:
        worker.process.stdin.close()
        worker.process.stdin = None
    for worker in workers:
        worker.end(count)
    print("%-10s %-18s %d passed, %d failed" % ("moving", "%d clients" % len(workers), count.passed - before[0], count.failed - before[1]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-cmd", default="starling", help="a short name or a command line with {port} and {dir}")
    parser.add_argument("--server", help="path of a starling binary")
    parser.add_argument("--only", default="", help="clients, separated by commas")
    parser.add_argument("--nodes", type=int, choices=(1, 3), help="only one node, or only three")
    options = parser.parse_args()
    if options.server:
        options.server_cmd = starling(options.server)
    prepare.debian_packages(["redis-server", "redis-cli", "redis-benchmark", "node", "npm", "python"])
    node, python, rust = {"NODE_FOLDER": prepare.node_modules()}, prepare.python_environment(), prepare.rust_program()
    libraries = {"ioredis": dict(node, CLIENT="ioredis"), "node-redis": dict(node, CLIENT="node-redis"),
                 "node-redis RESP3": dict(node, CLIENT="node-redis", RESP="3")}

    def chosen(cli, benchmark, suffix):
        script = os.path.join(HERE, "cases", "%s" + suffix + ".%s")
        clients = {"redis-cli": cli, "redis-benchmark": benchmark, "redis-py": ([python, script % ("redis_py", "py")], {}),
                   "redis crate": ([rust], {})}
        clients.update({name: (["node", script % ("node", "mjs")], environment) for name, environment in libraries.items()})
        return {name: client for name, client in clients.items() if not options.only or name in options.only.split(",")}

    def recipes():
        script = os.path.join(HERE, "cases", "recipes.%s")
        clients = {"redis-py": ([python, script % "py"], {})}
        clients.update({name: (["node", script % "mjs"], environment) for name, environment in libraries.items()})
        return {"%s recipes" % name: client for name, client in clients.items() if not options.only or name in options.only.split(",")}

    count = tools.Count()
    if options.nodes != 3:
        single = Single(options.server_cmd)
        try:
            on_servers(single, chosen(tools.redis_cli, tools.redis_benchmark, ""), {"MODE": "single"}, count, "one node")
            on_servers(single, recipes(), {"MODE": "single"}, count, "one node")
        finally:
            single.close()
    if options.nodes != 1:
        clients = chosen(tools.redis_cli_cluster, tools.redis_benchmark_cluster, "_cluster")
        try:
            cluster = Cluster(options.server_cmd)
        except RuntimeError as error:
            count.case("cluster", "three nodes", str(error))
        else:
            try:
                on_servers(cluster, clients, {"MODE": "cases", "COPIES": "0" if cluster.redis else "2"}, count, "three")
                on_servers(cluster, recipes(), {"MODE": "cluster"}, count, "three")
                while_slots_move(cluster, clients, count)
            finally:
                cluster.close()
            if not cluster.redis:
                forwarding = Cluster(options.server_cmd + " --routing proxy")
                try:
                    on_servers(forwarding, recipes(), {"MODE": "plain"}, count, "forwarded")
                finally:
                    forwarding.close()
    print("clients: %d passed, %d failed" % (count.passed, count.failed))
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main())
