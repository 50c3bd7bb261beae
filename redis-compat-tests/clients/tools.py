"""The command line tools of Redis against one node and against a cluster: redis-cli and redis-benchmark.

Each function takes the server or cluster and a `Count`, which it tells of every case.
"""
import re
import subprocess

from harness.topology import SLOTS, call

SECONDS = 180
BENCHMARK_REQUESTS = 10000
BENCHMARK_TESTS_MIN = 18
BENCHMARK_ERROR = re.compile(r"[^\r\n]*\b(Error|ERR|WARNING|MOVED|CLUSTERDOWN)\b[^\r\n]*")
# redis-server runs with appendonly off and other settings of its own; only this line is no error of the server.
BENCHMARK_HARMLESS = re.compile(r"WARNING: Could not fetch server CONFIG[^\r\n]*")


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


def run(*words, stdin=None):
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=SECONDS)
    return (done.stdout + done.stderr).strip(), done.returncode


def redis_cli(single, count):
    def cli(*words, stdin=None):
        return run("redis-cli", "-p", str(single.ports[0]), *words, stdin=stdin)[0]

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


def redis_cli_cluster(cluster, count):
    """redis-cli -c follows redirects from every node; --cluster looks at the whole cluster from one."""
    def expect(name, got, pattern):
        count.case("redis-cli", name, None if re.search(pattern, got) else "got %r" % got[-500:])

    commands = "".join("SET cli:c:%d %d\nGET cli:c:%d\n" % (i, i, i) for i in range(100))
    wanted = [word for i in range(100) for word in ("OK", str(i))]
    for port in cluster.ports:
        got, _ = run("redis-cli", "-c", "-p", str(port), stdin=commands)
        replies = [line for line in got.split("\n") if not line.startswith("-> Redirected")]
        count.case("redis-cli", "-c from %d" % cluster.ports.index(port), None if replies == wanted else "got %r" % got[-300:])
    got, _ = run("redis-cli", "-p", str(cluster.ports[0]), stdin=commands)
    moved = len(re.findall(r"MOVED \d+ 127\.0\.0\.1:\d+", got))
    count.case("redis-cli", "MOVED without -c", None if 50 < moved < 200 else "%d redirects of 200" % moved)
    address = cluster.addresses[0]
    got, code = run("redis-cli", "--cluster", "check", address)
    expect("--cluster check: agreement", got, r"\[OK\] All nodes agree about slots configuration")
    expect("--cluster check: coverage", got, r"\[OK\] All %d slots covered" % SLOTS)
    count.case("redis-cli", "--cluster check: exit code", "exits with %d: %s" % (code, got[-500:]) if code else None)
    expect("--cluster info", run("redis-cli", "--cluster", "info", address)[0], r"\[OK\] \d+ keys in %d (masters|primaries)" % len(cluster.ports))
    got, _ = run("redis-cli", "--cluster", "call", address, "PING")
    count.case("redis-cli", "--cluster call", None if got.count("PONG") == len(cluster.ports) else "got %r" % got[-300:])


def benchmark(count, name, words, tests_min):
    got, code = run("redis-benchmark", "-q", *words)
    tests = re.findall(r"([A-Z][^\r\n:]*): [\d.]+ requests per second", got)
    error = BENCHMARK_ERROR.search(BENCHMARK_HARMLESS.sub("", got))
    short = len(tests) < tests_min or code
    count.case("redis-benchmark", name, error.group(0) if error else "ended early: %r" % got[-300:] if short else None)


def redis_benchmark(single, count):
    port = single.ports[0]
    for pipeline in (1, 16):
        call(port, "FLUSHALL")
        name = "default suite, pipeline %d" % pipeline
        benchmark(count, name, ["-p", str(port), "-n", str(BENCHMARK_REQUESTS), "-P", str(pipeline)], BENCHMARK_TESTS_MIN)
        counter = call(port, "GET", "counter:__rand_int__")
        problem = None if counter == b"%d" % BENCHMARK_REQUESTS else "the counter is %r" % counter
        count.case("redis-benchmark", name + ": INCR counted", problem)


def redis_benchmark_cluster(cluster, count):
    address = ["-h", "127.0.0.1", "-p", str(cluster.ports[-1]), "--cluster", "-n", str(BENCHMARK_REQUESTS)]
    for pipeline in (1, 16):
        for port in cluster.ports:
            call(port, "FLUSHALL")
        name = "--cluster, default suite, pipeline %d" % pipeline
        benchmark(count, name, address + ["-P", str(pipeline)], BENCHMARK_TESTS_MIN)
        # Each thread counts in a key of a slot of its node; together they have counted every request.
        total = sum(int(call(port, "GET", key)) for port in cluster.ports for key in call(port, "KEYS", "counter:*"))
        problem = None if total == BENCHMARK_REQUESTS else "the counters sum to %d" % total
        count.case("redis-benchmark", name + ": INCR counted", problem)
    benchmark(count, "--cluster, random keys in threads", address + ["-r", "10000", "--threads", "2", "-t", "set,get,incr,lpush"], 4)
