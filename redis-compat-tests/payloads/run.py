#!/usr/bin/env python3
"""DUMP here and RESTORE in redis-server, and the other way, for random values of every type and encoding.

  run.py                     200 values each way against target/release/starling
  run.py --values 20000      the long form
  run.py --seed 17           the same values again
  run.py --target redis      redis-server against itself: checks this suite

What is compared is what the commands of the type answer. Some payloads are damaged behind a right checksum too: each
server must refuse them or take them, and go on.
"""
import argparse
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.contents import content  # noqa: E402
from harness.process import Server  # noqa: E402
from harness.wire import Connection  # noqa: E402

POLYNOMIAL = 0x95AC9329AC4BC9B5  # CRC64 of Redis (Jones), reflected


def crc64_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ POLYNOMIAL if byte & 1 else byte >> 1
        table.append(byte)
    return table


TABLE = crc64_table()


def crc64(data):
    crc = 0
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


class Values:
    """Random values, as commands that make them."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def element(self):
        kind = self.random.randrange(6)
        if kind == 0:
            return b"%d" % self.random.randrange(-200, 5000)
        if kind == 1:
            return b"%d" % (self.random.choice((-1, 1)) * self.random.randrange(1 << self.random.randrange(1, 64)))
        if kind == 2:
            return bytes(self.random.randrange(256) for _ in range(self.random.randrange(70)))
        if kind == 3:
            # Compressible, and of a length that takes another form in packed encodings.
            length = self.random.choice((63, 64, 127, 128, 200, 4095, 4096, 9000, 16370, 16384, 70000))
            return self.random.choice((b"a", b"ab", b"abcdefg")) * (length // 2)
        return b"e%d" % self.random.randrange(10000)

    def count(self):
        return self.random.choice((1, 2, 3, 10, 60, 127, 128, 129, 300, 511, 513, 1000))

    def score(self):
        kind = self.random.randrange(5)
        if kind == 0:
            return self.random.choice((b"inf", b"-inf", b"0", b"-0", b"1e300", b"4.9e-324"))
        if kind == 1:
            return b"%d" % self.random.randrange(-(1 << 55), 1 << 55)
        return repr(self.random.uniform(-1000, 1000)).encode()

    def commands(self, key):
        kind = self.random.choice(("string", "list", "set", "integers", "hash", "zset", "stream"))
        if kind == "string":
            return [["SET", key, self.element()]]
        if kind == "stream":
            return self.stream(key)
        return [self.collection(kind, key)]

    def stream(self, key):
        """Entries that have the fields of the first one and others, deleted ones, and what groups have read."""
        count = self.random.randrange(1, 250)
        commands, ids = [["XGROUP", "CREATE", key, "g1", "0", "MKSTREAM"]], []
        ms = 1000
        for number in range(count):
            ms += self.random.choice((0, 1, 1 << self.random.randrange(40)))
            ids.append(b"%d-%d" % (ms, number + 1))
            fields = [b"f1", self.element(), b"f2", self.element()]
            if self.random.random() < 0.2:
                fields += [self.element(), b"v"]
            commands.append(["XADD", key, ids[-1]] + fields)
        commands.append(["XGROUP", "CREATE", key, "g2", self.random.choice(ids)])
        commands.append(["XREADGROUP", "GROUP", "g1", "c1", "COUNT", self.random.randrange(1, 40), "STREAMS", key, ">"])
        commands.append(["XREADGROUP", "GROUP", "g1", "c2", "COUNT", self.random.randrange(1, 40), "STREAMS", key, ">"])
        commands.append(["XDEL", key] + self.random.sample(ids, max(1, count // 7)))
        if self.random.random() < 0.3:
            commands.append(["XTRIM", key, "MAXLEN", self.random.randrange(count)])
        return commands

    def collection(self, kind, key):
        small = self.random.random() < 0.5
        elements = [b"%d" % self.random.randrange(100000) if small else self.element() for _ in range(self.count())]
        if kind == "list":
            return ["RPUSH", key] + elements
        if kind == "set":
            return ["SADD", key] + elements
        if kind == "integers":
            bits = self.random.choice((10, 30, 62))
            return ["SADD", key] + [b"%d" % self.random.randrange(-(1 << bits), 1 << bits) for _ in elements]
        if kind == "hash":
            return ["HSET", key] + [word for element in elements for word in (element, self.element())]
        return ["ZADD", key] + [word for element in elements for word in (self.score(), element)]


ENCODINGS = (
    {},
    {"hash-max-listpack-entries": "0", "zset-max-listpack-entries": "0", "set-max-intset-entries": "0"},
    {"hash-max-listpack-entries": "2000", "zset-max-listpack-entries": "2000", "hash-max-listpack-value": "100000",
     "zset-max-listpack-value": "100000", "set-max-intset-entries": "2000"},
    {"list-max-listpack-size": "3", "list-compress-depth": "1"},
    {"list-max-listpack-size": "-5", "rdbcompression": "no"},
)


def cross(values, source, target, number):
    """The differences between what was dumped and what was restored."""
    key = b"k%d" % number
    source.call("DEL", key)
    for command in values.commands(key):
        source.call(*command)
    payload = source.call("DUMP", key)
    target.call("DEL", key)
    answer = target.call("RESTORE", key, "0", payload)
    if answer != b"OK":
        return "RESTORE answers %r to %r" % (answer, payload[:200])
    expected, found = content(source, key), content(target, key)
    if expected != found:
        return "restored %r of %r" % (str(found)[:300], str(expected)[:300])
    # Twice is not once: the copy must be as good as the original.
    if source.call("RESTORE", key, "0", target.call("DUMP", key), "REPLACE") != b"OK":
        return "the copy cannot be restored: %r" % payload[:200]
    return None if content(source, key) == expected else "the copy is another: %r" % payload[:200]


def damage(values, connection, payload):
    """Sends damaged forms of a payload; what it becomes must be readable."""
    body = bytearray(payload[:-8])
    for _ in range(values.random.randrange(1, 4)):
        body[values.random.randrange(len(body) - 2)] = values.random.randrange(256)
    broken = bytes(body) + crc64(body).to_bytes(8, "little")
    connection.call("RESTORE", "broken", "0", broken, "REPLACE")
    content(connection, "broken")
    connection.call("DUMP", "broken")


def compare(values, count, redis, target):
    """The number of failures in so many values each way."""
    failures = 0
    for number in range(count):
        if number % 40 == 0:
            for name, value in values.random.choice(ENCODINGS).items():
                redis.call("CONFIG", "SET", name, value)
                target.call("CONFIG", "SET", name, value)
        for way, source, sink in (("to redis", target, redis), ("from redis", redis, target)):
            problem = cross(values, source, sink, number)
            if problem:
                failures += 1
                print("%s, value %d: %s" % (way, number, problem))
        for _ in range(5):
            damage(values, target, redis.call("DUMP", b"k%d" % number))
        if failures >= 10:
            break
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=200, help="how many each way")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--target", default="starling", help="a short name or a command line with {port} and {dir}")
    options = parser.parse_args()
    values = Values(options.seed)
    redis_options = ["--sanitize-dump-payload", "yes"]
    with Server("redis", extra=redis_options) as reference, Server(options.target) as target:
        reference.wait_ready()
        target.wait_ready()
        failures = compare(values, options.values, Connection(reference.port), Connection(target.port))
    print("payloads: %d values each way, seed %d: %d failures" % (options.values, options.seed, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
