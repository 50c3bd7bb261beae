#!/usr/bin/env python3
"""What saving all keys costs while clients write, and how long they take to load: beside redis-server and Valkey.

  saving.py                                  5,000,000 keys of 64 bytes, 30,000 SET a second; some minutes
  saving.py --keys 1000000 --only starling   less of it
  PEERS=/where/they/are saving.py            with Valkey, where PEERS says it is built

Each server has every processor that it may take: redis-server saves in a child. Memory is the proportional set of the
process and its child (Pss), so pages that the two share count once. One server after the other; the rate is that of an
open loop: a request that waits counts from the moment at which it was due.
"""
import argparse
import os
import sys
import threading
import time

from measure import Contender, load, markdown
from harness.wire import Connection

SHARED = " --port {port} --dir {dir} --bind 127.0.0.1 --save '' --appendonly no"
COMMANDS = {
    "starling": "{repository}/target/release/starling --threads {threads}", "redis": "redis-server",
    "valkey": "{peers}/valkey/src/valkey-server",
}


def memory(pid):
    """Bytes of a process and its children, shared pages counted once."""
    pids, total = [pid], 0
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/children" % (pid, task)) as file:
                pids += [int(child) for child in file.read().split()]
        except OSError:
            continue
    for one in pids:
        try:
            with open("/proc/%d/smaps_rollup" % one) as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            continue
    return total


def info(connection, name):
    text = connection.call("INFO", "persistence").decode()
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(name + ":"))


class Saves(threading.Thread):
    """One BGSAVE after the other, until told to end: how long each took, and the most memory."""

    def __init__(self, contender):
        super().__init__()
        self.contender, self.ends, self.seconds, self.most = contender, threading.Event(), [], 0
        self.connection = Connection(contender.server.port)

    def run(self):
        while not self.ends.is_set():
            started = time.monotonic()
            self.connection.call("BGSAVE")
            while info(self.connection, "rdb_bgsave_in_progress") == "1":
                self.most = max(self.most, memory(self.contender.server.pid))
                time.sleep(0.05)
            if info(self.connection, "rdb_last_bgsave_status") != "ok":
                raise RuntimeError("%s: a BGSAVE failed" % self.contender.name)
            self.seconds.append(time.monotonic() - started)
            # What a save has taken is given back before the next.
            self.ends.wait(1)


def measure(contender, options):
    """The figures of one server."""
    contender.start(None)
    query = "SET key:{r} {d}"
    load(contender, ["1:SET key:{s} {d}"], None, P=64, n=options.keys, d=64, c=4)
    shared = {"c": options.connections, "P": 1, "r": options.keys, "d": 64, "R": options.rate, "t": options.seconds}
    load(contender, ["1:" + query], None, s=1, **dict(shared, t=2))
    quiet = load(contender, ["1:" + query], None, s=2, **shared)
    before = memory(contender.server.pid)
    saves = Saves(contender)
    saves.start()
    busy = load(contender, ["1:" + query], None, s=3, **shared)
    saves.ends.set()
    saves.join()
    saves.connection.call("SAVE")
    server = contender.server
    server.end(9)
    server.start()
    server.wait_ready(120)
    connection = Connection(server.port)
    while True:
        answer = connection.call("DBSIZE")
        if isinstance(answer, int):
            break
        time.sleep(0.01)
    loaded = time.monotonic() - server.started
    if answer != options.keys:
        raise RuntimeError("%s: %d keys are back" % (contender.name, answer))
    contender.close()
    return [contender.name, "%.0f" % (before / 1e6), "%.1f" % (sum(saves.seconds) / len(saves.seconds)), len(saves.seconds),
            "%.0f" % ((saves.most - before) / 1e6), "%.1f" % (100 * (saves.most - before) / before),
            "%.2f" % (quiet["p99_us"] / 1e3), "%.2f" % (busy["p99_us"] / 1e3), "%.0f" % (busy["rps"] / 1e3), "%.2f" % loaded]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--rate", type=int, default=30_000, help="SETs a second while it saves")
    parser.add_argument("--seconds", type=float, default=15, help="of load, without saving and while saving")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2, help="of starling's workers")
    options = parser.parse_args()
    rows = []
    for name, command in COMMANDS.items():
        contender = Contender({"name": name, "command": command + SHARED}, options.threads)
        if options.only and name not in options.only.split(","):
            continue
        if not contender.installed():
            print("left out: %s, it is not there" % name, file=sys.stderr)
            continue
        try:
            rows.append(measure(contender, options))
        finally:
            contender.close()
        print(" ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    print("%d keys of 64 bytes, %d SET/s by %d connections (open loop), %.0f s.\n" % (
        options.keys, options.rate, options.connections, options.seconds))
    print(markdown(["server", "MB", "save s", "saves", "extra MB", "extra %", "p99 ms before", "p99 ms saving", "k req/s",
                    "load s"], rows))


if __name__ == "__main__":
    main()
