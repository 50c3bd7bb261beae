#!/usr/bin/env python3
"""Stock clients doing real work against one node: redis-cli, redis-benchmark, redis-py, ioredis, node-redis.

  run.py                        against target/release/starling
  run.py --server-cmd redis     against redis-server: checks this suite
  run.py --only redis-py        one client

Installs what is missing (see prepare.py). Every case reads back what it wrote; a client that stops before its last
case is a failure. Ends with counts, and exits 0 only when nothing failed.
"""
import argparse
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import prepare  # noqa: E402
from harness.topology import Single, call  # noqa: E402

CLIENT_SECONDS = 180
BENCHMARK_TESTS_MIN = 18


class Count:
    """Counts cases and prints those that fail."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def case(self, client, name, problem=None):
        if problem:
            self.failed += 1
            print("FAIL %s: %s: %s" % (client, name, problem), flush=True)
        else:
            self.passed += 1


def program(words, environment, count, client):
    """Run a client program that prints `ok name`, `not ok name # why`, and at last `done`."""
    try:
        done = subprocess.run(words, env=dict(os.environ, **environment), capture_output=True, text=True, timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired as error:
        count.case(client, "all", "does not end; so far: %s" % (error.stdout or b"")[-500:])
        return
    lines = done.stdout.splitlines()
    for line in lines:
        if line.startswith("ok "):
            count.case(client, line[3:])
        elif line.startswith("not ok "):
            name, _, why = line[7:].partition(" # ")
            count.case(client, name, why or "failed")
    if not lines or lines[-1] != "done":
        count.case(client, "all", "stopped early: %s" % (done.stdout + done.stderr)[-800:])


def redis_cli(single, count):
    def cli(*words, stdin=None):
        done = subprocess.run(["redis-cli", "-p", str(single.servers[0].port), *words], input=stdin, capture_output=True, text=True, timeout=60)
        return (done.stdout + done.stderr).strip()

    def expect(name, got, pattern):
        count.case("redis-cli", name, None if re.search(pattern, got) else "got %r" % got[-300:])

    expect("SET", cli("SET", "cli:k", "value"), r"^OK$")
    expect("GET", cli("GET", "cli:k"), r"^value$")
    expect("RESP3", cli("-3", "GET", "cli:k"), r"^value$")
    expect("database", cli("-n", "2", "EXISTS", "cli:k"), r"^0$")
    expect("error", cli("LPUSH", "cli:k", "x"), r"^WRONGTYPE")
    expect("MULTI from a script", cli(stdin="MULTI\nSET cli:m 1\nINCR cli:m\nEXEC\n"), r"OK\s+QUEUED\s+QUEUED\s+OK\s+2$")
    pipe = "".join("SET cli:pipe:%d %d\r\n" % (i, i) for i in range(1000))
    expect("--pipe", cli("--pipe", stdin=pipe), r"errors: 0, replies: 1000")
    expect("--scan", str(len(set(cli("--scan", "--pattern", "cli:pipe:*").split()))), r"^1000$")
    expect("--bigkeys", cli("--bigkeys"), r"Sampled \d+ keys")
    expect("INFO", cli("INFO", "server"), r"redis_version:\d+\.\d+")
    expect("repeat", cli("-r", "5", "INCR", "cli:counter"), r"1\s+2\s+3\s+4\s+5$")


def redis_benchmark(single, count):
    port, requests = single.servers[0].port, 10000
    for pipeline in (1, 16):
        call(port, "FLUSHALL")
        done = subprocess.run(["redis-benchmark", "-p", str(port), "-n", str(requests), "-P", str(pipeline), "-q"],
                              capture_output=True, text=True, timeout=CLIENT_SECONDS)
        tests = re.findall(r"([A-Z][^\r\n:]*): [\d.]+ requests per second", done.stdout)
        name, text = "default suite, pipeline %d" % pipeline, done.stdout + done.stderr
        error = re.search(r"[^\r\n]*\b(Error|ERR)\b[^\r\n]*", text)
        short = len(tests) < BENCHMARK_TESTS_MIN or done.returncode
        count.case("redis-benchmark", name, error.group(0) if error else "ended early: %r" % text[-300:] if short else None)
        counter = call(port, "GET", "counter:__rand_int__")
        count.case("redis-benchmark", name + ": INCR counted", None if counter == b"%d" % requests else "the counter is %r" % counter)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-cmd", default="starling", help="a short name or a command line with {port} and {dir}")
    parser.add_argument("--server", help="path of a starling binary")
    parser.add_argument("--only", default="", help="clients, separated by commas")
    options = parser.parse_args()
    if options.server:
        options.server_cmd = os.path.abspath(options.server) + " --port {port} --dir {dir}"
    prepare.debian_packages(["redis-server", "redis-cli", "redis-benchmark", "node", "npm", "python"])
    node = {"NODE_FOLDER": prepare.node_modules()}
    clients = {
        "redis-cli": redis_cli, "redis-benchmark": redis_benchmark,
        "redis-py": ([prepare.python_environment(), os.path.join(HERE, "cases", "redis_py.py")], {}),
        "ioredis": (["node", os.path.join(HERE, "cases", "node.mjs")], dict(node, CLIENT="ioredis")),
        "node-redis": (["node", os.path.join(HERE, "cases", "node.mjs")], dict(node, CLIENT="node-redis")),
        "node-redis RESP3": (["node", os.path.join(HERE, "cases", "node.mjs")], dict(node, CLIENT="node-redis", RESP="3")),
    }
    count = Count()
    single = Single(options.server_cmd)
    try:
        for name, client in clients.items():
            if options.only and name not in options.only.split(","):
                continue
            before = count.passed, count.failed
            if callable(client):
                client(single, count)
            else:
                program(client[0], dict(client[1], ADDRESSES=",".join(single.addresses)), count, name)
            print("%-18s %d passed, %d failed" % (name, count.passed - before[0], count.failed - before[1]), flush=True)
            if not single.alive():
                count.case(name, "server", "ended: " + single.servers[0].log_tail())
                break
    finally:
        single.close()
    print("clients: %d passed, %d failed" % (count.passed, count.failed))
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main())
