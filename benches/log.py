#!/usr/bin/env python3
"""What the log on disk costs: SET of 64 bytes without it, with it synced each second, and with it synced before each reply.

  log.py                                     starling, redis-server, and Valkey where PEERS says it is built
  log.py --pipelines 16 --only starling      fewer;  --binary FILE  also another build of starling, as `before`
  PEERS=/where/they/are log.py

All servers keep their logs below one directory (--directory, by default the system's for temporary files), on a disk:
what `always` costs is its fdatasync. Placed on processors and measured as throughput.py does it; README.md says how to
read it.
"""
import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time

from measure import HERE, Contender, load, markdown
from throughput import SET, median

MODES = {"no log": ["--appendonly", "no"], "everysec": ["--appendonly", "yes", "--appendfsync", "everysec"],
         "always": ["--appendonly", "yes", "--appendfsync", "always"]}
SHARED = " --port {port} --dir {dir} --bind 127.0.0.1 --save '' --auto-aof-rewrite-percentage 0 "
COMMANDS = {
    "starling": "{repository}/target/release/starling --threads {threads}", "redis": "redis-server",
    "valkey": "{peers}/valkey/src/valkey-server",
}


def chosen(options):
    """{server: {mode: contender}} of the servers that are there."""
    commands = dict(COMMANDS)
    if options.binary:
        commands["before"] = shlex.quote(options.binary) + " --threads {threads}"
    names = [name for name in commands if not options.only or name in options.only.split(",")]
    found = {}
    for name in names:
        modes = {mode: Contender({"name": name, "command": commands[name] + SHARED + shlex.join(words)}, options.threads)
                 for mode, words in MODES.items() if not options.modes or mode in options.modes.split(",")}
        if all(contender.installed() for contender in modes.values()):
            found[name] = modes
        else:
            print("left out: %s, it is not there" % name, file=sys.stderr)
    return found


def measure(contender, pipeline, options, number):
    """The figures of one round."""
    shared = {"c": options.connections, "P": pipeline, "r": options.keys, "d": 64}
    contender.resume()
    if contender.filled_bytes is None:
        load(contender, ["1:SET key:{s} {d}"], options.client_cpus, P=64, n=options.keys, d=64)
        contender.filled_bytes = 64
    load(contender, ["1:" + SET], options.client_cpus, t=options.warm_up, s=99, **shared)
    before = contender.server.cpu_seconds()
    figures = load(contender, ["1:" + SET], options.client_cpus, t=options.seconds, s=number + 1, **shared)
    figures["server_us"] = (contender.server.cpu_seconds() - before) / figures["requests"] * 1e6
    contender.pause()
    if figures["errors"]:
        raise RuntimeError("%s: %d errors: %s" % (contender.name, figures["errors"], figures["err"]))
    return figures


def sync_us(directory, bytes_ahead):
    """Median microseconds of an fdatasync of 4 KB, at the end of a file or over bytes that were written and synced before."""
    with tempfile.TemporaryFile(dir=directory) as file:
        if bytes_ahead:
            os.pwrite(file.fileno(), bytes(bytes_ahead), 0)
            os.fsync(file.fileno())
        times = []
        for number in range(200):
            os.pwrite(file.fileno(), b"x" * 4096, number * 4096)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
        return statistics.median(times)


def table(results, servers):
    rows = []
    for pipeline, by_mode in results.items():
        for mode, by_server in by_mode.items():
            for name in servers:
                runs = by_server.get(name)
                if not runs:
                    continue
                without = by_mode.get("no log", {}).get(name)
                valkey = by_server.get("valkey") or by_server.get("redis")
                spread = 100 * (max(run["server_us"] for run in runs) / min(run["server_us"] for run in runs) - 1)
                rows.append([pipeline, mode, name, "%.0f" % (median(runs, "rps") / 1e3), "%.3f" % median(runs, "server_us"),
                             "%.0f" % spread, "%.0f" % median(runs, "p50_us"), "%.0f" % median(runs, "p999_us"),
                             "%.2f" % (median(runs, "server_us") / median(without, "server_us")) if without else "",
                             *("%.2f" % (median(runs, field) / median(valkey, field)) if valkey else "" for field in ("server_us", "rps"))])
    return markdown(["P", "log", "server", "k req/s", "CPU us/req", "spread %", "p50 us", "p99.9 us", "x no log", "x CPU", "x req/s"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--modes", default="", help="of 'no log', everysec, always, separated by commas")
    parser.add_argument("--binary", default="", help="another build of starling to measure beside it")
    parser.add_argument("--pipelines", default="1,16,128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--keys", type=int, default=300_000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of starling's workers")
    parser.add_argument("--server-cpus", default="0")
    parser.add_argument("--client-cpus", default="1")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="on the disk to measure")
    options = parser.parse_args()
    tempfile.tempdir = options.directory
    servers, results, started = chosen(options), {}, time.monotonic()
    running = [contender for modes in servers.values() for contender in modes.values()]
    try:
        for contender in running:
            contender.start(options.server_cpus)
            contender.pause()
        for pipeline in map(int, options.pipelines.split(",")):
            for number in range(options.rounds):
                # The order of servers turns from round to round.
                names = list(servers)
                for name in names[number % len(names):] + names[:number % len(names)]:
                    for mode, contender in servers[name].items():
                        runs = results.setdefault(pipeline, {}).setdefault(mode, {}).setdefault(name, [])
                        runs.append(measure(contender, pipeline, options, number))
            for mode, by_server in results[pipeline].items():
                print("P%-4d %-9s" % (pipeline, mode), "   ".join(
                    "%s %.3f us, %.0f k/s" % (name, median(runs, "server_us"), median(runs, "rps") / 1e3)
                    for name, runs in by_server.items()), file=sys.stderr, flush=True)
    finally:
        for contender in running:
            contender.close()
    print("Medians of %d interleaved rounds of %.1f s, %d keys, %d connections, %.0f s in all. x no log: CPU beside the same "
          "server's without a log. x CPU, x req/s: beside %s's in the same row's mode. An fdatasync of 4 KB takes %.0f us where "
          "the file grows, %.0f us over bytes written before.\n" % (
              options.rounds, options.seconds, options.keys, options.connections, time.monotonic() - started,
              "valkey" if "valkey" in servers else "redis", sync_us(options.directory, 0), sync_us(options.directory, 1 << 20)))
    print(table(results, list(servers)))


if __name__ == "__main__":
    main()
