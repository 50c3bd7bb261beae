#!/usr/bin/env python3
"""What one request costs that has many arguments: microseconds per argument, of Starling beside redis-server.

  arguments.py                        1,000, 10,000 and 100,000 arguments, the least of 5 tries
  arguments.py --only starling        one of the servers

A cost that is linear stays the same from column to column; one that grows with them is quadratic, and holds up everybody
who wants the same keys. The keys of a request lie in one slot. The Markdown table goes to stdout.
"""
import argparse
import os
import socket
import sys
import time

from measure import HERE, contenders, markdown

SIZES = (1_000, 10_000, 100_000)


def names(count, prefix=b"member"):
    return [prefix + b"%d" % number for number in range(count)]


def pairs(keys, value=lambda number: b"%d" % number):
    return [word for number, key in enumerate(keys) for word in (value(number), key)]


def keyed(count):
    return names(count, b"{t}key")


# Name: (requests before, whose time is not measured; the request), each from the number of arguments.
CASES = {
    "MSET": lambda n: ([], [b"MSET"] + [word for key in keyed(n // 2) for word in (key, b"v")]),
    "MGET": lambda n: ([[b"MSET"] + [word for key in keyed(n) for word in (key, b"v")]], [b"MGET"] + keyed(n)),
    "DEL": lambda n: ([[b"MSET"] + [word for key in keyed(n) for word in (key, b"v")]], [b"DEL"] + keyed(n)),
    "EXISTS": lambda n: ([], [b"EXISTS"] + keyed(n)),
    "SADD": lambda n: ([], [b"SADD", b"{t}set"] + names(n)),
    "SREM": lambda n: ([[b"SADD", b"{t}set"] + names(n)], [b"SREM", b"{t}set"] + names(n)),
    "HSET": lambda n: ([], [b"HSET", b"{t}hash"] + pairs(names(n // 2), lambda number: b"field%d" % number)),
    "HMGET": lambda n: ([], [b"HMGET", b"{t}hash"] + names(n)),
    "ZADD": lambda n: ([], [b"ZADD", b"{t}sorted"] + pairs(names(n // 2))),
    "ZADD, one member": lambda n: ([], [b"ZADD", b"{t}sorted"] + pairs([b"member"] * (n // 2))),
    "ZREM": lambda n: ([[b"ZADD", b"{t}sorted"] + pairs(names(n))], [b"ZREM", b"{t}sorted"] + names(n)),
    "ZMSCORE": lambda n: ([], [b"ZMSCORE", b"{t}sorted"] + names(n)),
    "RPUSH": lambda n: ([], [b"RPUSH", b"{t}list"] + names(n)),
    "WATCH": lambda n: ([], [b"WATCH"] + keyed(n)),
    "SUBSCRIBE": lambda n: ([], [b"SUBSCRIBE"] + names(n, b"channel")),
    "PSUBSCRIBE": lambda n: ([], [b"PSUBSCRIBE"] + names(n, b"pattern*")),
    "unknown command": lambda n: ([], [b"NOSUCH"] + names(n)),
}

# redis-server compares each watched key with all others: 100,000 of them take it minutes.
LEFT_OUT = {("WATCH", "redis")}


def encode(words):
    return b"".join([b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words])


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def until(self, end):
        """Reads up to and including `end`, which must be the last thing that is sent."""
        tail = b""
        while not tail.endswith(end):
            received = self.socket.recv(1 << 20)
            if not received:
                raise RuntimeError("the server closed the connection")
            tail = (tail + received)[-len(end):]

    def seconds(self, words):
        """From the first byte of a request to the reply of the PING behind it."""
        request = encode(words) + encode([b"PING", b"the end"])
        started = time.perf_counter()
        self.socket.sendall(request)
        self.until(b"the end\r\n")
        return time.perf_counter() - started


def least(port, case, count, tries):
    found = []
    for _ in range(tries):
        client = Client(port)
        client.seconds([b"FLUSHALL"])
        before, request = case(count)
        for words in before:
            client.seconds(words)
        found.append(client.seconds(request))
        client.socket.close()
    return min(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=os.environ.get("BENCH_SERVERS") or os.path.join(HERE, "servers.json"))
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--tries", type=int, default=5)
    options = parser.parse_args()
    servers, rows = contenders(options.servers, options.only, 1), []
    try:
        for server in servers:
            server.start("0")
        for name, case in CASES.items():
            for server in (server for server in servers if (name, server.name) not in LEFT_OUT):
                each = [least(server.server.port, case, size, options.tries) / size * 1e6 for size in SIZES]
                rows.append([name, server.name] + ["%.3f" % cost for cost in each] + ["%.1f" % (each[-1] / each[0])])
                print("%-18s %-10s %s" % (name, server.name, rows[-1][2:]), file=sys.stderr, flush=True)
    finally:
        for server in servers:
            server.close()
    print(markdown(["request", "server"] + ["us each, %d" % size for size in SIZES] + ["last / first"], rows))


if __name__ == "__main__":
    main()
