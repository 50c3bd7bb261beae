#!/usr/bin/env python3
"""What eviction does beside redis-server: hit rate of a cache on a Zipf load, and resident memory under a storm of writes.

  eviction.py                              256 MB, allkeys-lru and allkeys-lfu
  eviction.py --limit 64 --requests 300000 --policies allkeys-lru

Hit rate: keys drawn by a Zipf distribution are read, 64 in a pipeline, and written where they are missing (16 to 1000 bytes, by the key); the
first half of the requests warms up. The same keys, in the same order, for every server. Storm: values from 16 bytes to 64
KB, their sizes spread evenly over the powers of two, on random keys; ten times the limit is written, the greatest resident
set of the second half counts. Progress goes to stderr, the Markdown table to stdout.
"""
import argparse
import bisect
import os
import random
import socket
import sys
import time
import zlib

from measure import HERE, contenders, markdown
from harness.wire import Connection  # measure.py has put redis-compat-tests on the path

PIPELINE = 64
VALUE = b"x" * 1000


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


class Pipe:
    """A connection on which many requests are under way."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def ask(self, requests):
        """Sends them all; the replies, None for a null."""
        self.socket.sendall(b"".join(requests))
        return [self.reply() for _ in requests]

    def reply(self):
        line = self.file.readline()
        if line[:1] == b"-":
            raise RuntimeError(line.decode())
        if line[:1] != b"$":
            return line
        length = int(line[1:])
        return None if length < 0 else self.file.read(length + 2)


def zipf(count, keys, exponent, seed):
    """Key numbers, the smaller the more frequent."""
    total, bounds = 0.0, []
    for rank in range(1, keys + 1):
        total += rank ** -exponent
        bounds.append(total)
    draw = random.Random(seed)
    return [bisect.bisect(bounds, draw.random() * total) for _ in range(count)]


def hit_rate(server, numbers):
    """The share of reads in the second half that find their key."""
    pipe, hits, counted = Pipe(server.port), 0, 0
    for start in range(0, len(numbers), PIPELINE):
        batch = [b"key:%d" % number for number in numbers[start:start + PIPELINE]]
        replies = pipe.ask([command(b"GET", key) for key in batch])
        missing = [key for key, reply in zip(batch, replies) if reply is None]
        if missing:
            pipe.ask([command(b"SET", key, VALUE[:16 + zlib.crc32(key) % 985]) for key in missing])
        if start >= len(numbers) // 2:
            hits += len(batch) - len(missing)
            counted += len(batch)
    return hits / counted


def storm(server, limit):
    """The greatest resident set of the second half of a storm of writes, in bytes."""
    pipe, draw, written, greatest = Pipe(server.port), random.Random(7), 0, 0
    block = b"y" * 65536
    while written < 10 * limit:
        batch = []
        for _ in range(16):
            size = int(2 ** draw.uniform(4, 16))
            batch.append(command(b"SET", b"key:%d" % draw.randrange(1 << 22), block[:size]))
            written += size
        pipe.ask(batch)
        if written > 5 * limit:
            greatest = max(greatest, server.memory())
    return greatest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=os.environ.get("BENCH_SERVERS") or os.path.join(HERE, "servers.json"))
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--policies", default="allkeys-lru,allkeys-lfu")
    parser.add_argument("--limit", type=int, default=256, help="MB")
    parser.add_argument("--requests", type=int, default=3_000_000)
    parser.add_argument("--keys", type=int, default=3_000_000)
    parser.add_argument("--exponent", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server-cpus", default="0")
    options = parser.parse_args()
    policies, limit = options.policies.split(","), options.limit << 20
    numbers, rows = zipf(options.requests, options.keys, options.exponent, 1), []
    for contender in contenders(options.servers, options.only, options.threads):
        row = [contender.name]
        for policy in policies:
            for measure in (lambda server: "%.4f" % hit_rate(server, numbers),
                            lambda server: "%.2f" % (storm(server, limit) / limit)):
                contender.start(options.server_cpus)
                try:
                    connection = Connection(contender.server.port)
                    connection.call("CONFIG", "SET", "maxmemory", str(limit))
                    connection.call("CONFIG", "SET", "maxmemory-policy", policy)
                    begun = time.monotonic()
                    row.append(measure(contender.server))
                    info = connection.call("INFO", "stats")
                    text = info.decode() if isinstance(info, bytes) else str(info)
                    evicted = [line for line in text.split("\r\n") if line.startswith("evicted_keys")]
                    print(contender.name, policy, row[-1], *evicted, "%.1f s" % (time.monotonic() - begun), file=sys.stderr)
                    connection.close()
                finally:
                    contender.close()
        rows.append(row)
    head = ["server"] + [title for policy in policies for title in (policy + " hits", "RSS / limit")]
    print("Hit rate on a Zipf load, and resident memory under a storm, with a limit of %d MB.\n" % options.limit)
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
