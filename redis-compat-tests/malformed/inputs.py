"""Malformed requests: what a broken or hostile client could send, drawn from (seed, index).

Most begin as valid requests and are then damaged; some are built for one weakness of parsers. The commands in them
answer the same on any server in any state (PING, ECHO, SET, unknown names), so that whole replies can be compared.
"""
import random

EDGE_NUMBERS = [b"0", b"-1", b"-2", b"1", b"2", b"10", b"11", b"1000", b"16384", b"16385", b"65536", b"1048575", b"1048576",
                b"1048577", b"2147483646", b"536870911", b"536870912", b"536870913", b"2147483647", b"2147483648", b"4294967296",
                b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"18446744073709551616",
                b"9" * 40, b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1.0", b"0x1", b"abc", b"1\n", b"\x00", b"1\x002"]
WORDS = [b"", b"a", b"greet", b"x" * 31, b"y" * 1000, b"\r\n", b"\x00\xff", b"*1\r\n$4\r\nPING\r\n", b"$5", b"'", b'"', b"\\"]
PLACES = [b"*", b"$", b":", b"+", b"-", b"%", b"~", b">", b"!", b"=", b"_", b",", b"(", b"#", b"\r", b"\n", b"\0", b"A"]


def request(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Inputs:
    """`draw(index)` gives (name of the kind, bytes); the same for the same seed and index, in any order."""

    def __init__(self, seed):
        self.seed = seed
        self.kinds = [(name[5:], getattr(self, name)) for name in sorted(dir(self)) if name.startswith("draw_")]
        self.weights = [WEIGHTS.get(name, 10) for name, _function in self.kinds]

    def draw(self, index):
        self.random = random.Random("%d:%d" % (self.seed, index))
        name, function = self.random.choices(self.kinds, self.weights)[0]
        return name, function()

    def valid(self):
        """A few valid requests."""
        choose = self.random.choice
        requests = []
        for _ in range(choose((1, 1, 2, 4))):
            word = choose(WORDS)
            requests.append(request(choose(([b"PING"], [b"ECHO", word], [b"SET", b"k" + word[:20], word], [b"PING", word],
                                            [b"NOSUCH", word], [b"ECHO"], [b"ping", b"a", b"b"]))))
        return b"".join(requests)

    # Damage to valid requests

    def draw_cut(self):
        data = self.valid()
        return data[:self.random.randrange(len(data))]

    def draw_flipped(self):
        data = bytearray(self.valid())
        for _ in range(self.random.choice((1, 1, 2, 5))):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return bytes(data)

    def draw_inserted(self):
        data = self.valid()
        place = self.random.randrange(len(data) + 1)
        extra = self.random.choice(PLACES + WORDS + [bytes(self.random.randrange(256) for _ in range(8))])
        return data[:place] + extra + data[place:]

    def draw_removed(self):
        data = self.valid()
        place = self.random.randrange(len(data))
        return data[:place] + data[place + self.random.choice((1, 1, 2, 3, 10)):]

    def draw_spliced(self):
        first, second = self.valid(), self.valid()
        return first[:self.random.randrange(len(first))] + second[self.random.randrange(len(second)):] + self.valid()

    def draw_bare_newlines(self):
        return self.valid().replace(b"\r\n", self.random.choice((b"\n", b"\r", b"\n\r", b"\r\r\n")), self.random.choice((1, 2, -1)))

    # Numbers

    def draw_count(self):
        number = self.random.choice(EDGE_NUMBERS)
        return self.maybe_valid() + b"*" + number + b"\r\n" + self.random.choice((b"", b"$4\r\nPING\r\n" * 3, self.valid()))

    def draw_length(self):
        number = self.random.choice(EDGE_NUMBERS)
        return (self.maybe_valid() + self.random.choice((b"*1\r\n", b"*2\r\n$4\r\nECHO\r\n")) + b"$" + number + b"\r\n"
                + self.random.choice((b"", b"PING\r\n", b"x" * 100, self.valid())))

    def draw_wrong_length(self):
        word = self.random.choice(WORDS)
        length = max(0, len(word) + self.random.choice((-3, -2, -1, 1, 2, 3, 100)))
        return b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (length, word) + self.valid()

    def draw_wrong_type(self):
        kind = self.random.choice(PLACES)
        return self.maybe_valid() + b"*1\r\n" + kind + b"4\r\nPING\r\n"

    def draw_reply(self):
        return self.random.choice((b"+OK\r\n", b"-ERR no\r\n", b":1\r\n", b"%1\r\n+a\r\n:1\r\n", b"_\r\n", b"#t\r\n",
                                   b">2\r\n+a\r\n+b\r\n", b"$4\r\nPING\r\n", b"|1\r\n+a\r\n+b\r\n")) + self.maybe_valid()

    # Text

    def draw_garbage(self):
        return bytes(self.random.randrange(256) for _ in range(self.random.choice((1, 2, 10, 100, 1000))))

    def draw_inline(self):
        pieces = [b"PING", b"ECHO", b"ping", b'"', b"'", b'"a b"', b"'c d'", b"\\", b'"\\x41\\n\\"', b"\\x", b"\t", b" ", b"\0",
                  b'"a"b', b"'a'b", b"''", b'""', b"NOSUCH", b"\xff", b"SET"]
        line = b"".join(self.random.choice(pieces) + self.random.choice((b"", b" ")) for _ in range(self.random.randrange(1, 8)))
        return line + self.random.choice((b"\r\n", b"\n", b"\n\n", b"\r\n\r\n", b"")) + self.maybe_valid()

    def draw_http(self):
        return self.random.choice((b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n\r\nPING\r\n",
                                   b"host: localhost\r\n", b"post\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60))

    # Size

    def draw_long_inline(self):
        size = self.random.choice((1000, 16384, 65535, 65536, 65537, 70000, 200000))
        return b"ECHO " * self.random.choice((0, 1)) + b"a" * size + self.random.choice((b"", b"\r\n"))

    def draw_long_line(self):
        return self.random.choice((b"*", b"*1\r\n$", b"*-", b"*1\r\n$-")) + b"1" * self.random.choice((20, 100, 65537, 100000))

    def draw_nested_arrays(self):
        return b"*1\r\n" * self.random.choice((2, 10, 1000, 50000))

    def draw_nothing_much(self):
        return self.random.choice((b"\r\n", b"*0\r\n", b"*-1\r\n", b"\n", b"*-10\r\n")) * self.random.choice((1, 10, 1000, 50000)) + self.valid()

    def draw_promise(self):
        """Announces much and sends little of it."""
        return self.random.choice((
            b"*1048576\r\n" + b"$1\r\na\r\n" * self.random.choice((0, 1, 1000)),
            b"*2\r\n$4\r\nECHO\r\n$536870912\r\n" + b"x" * self.random.choice((0, 1, 40000, 200000)),
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\n" + b"y" * 70000))

    def draw_pipeline(self):
        return b"".join(self.valid() for _ in range(200)) + self.draw_count()

    def maybe_valid(self):
        return self.valid() if self.random.random() < 0.4 else b""


WEIGHTS = {"flipped": 40, "inserted": 25, "removed": 25, "cut": 20, "spliced": 20, "count": 20, "length": 25, "inline": 25,
           "long_inline": 2, "long_line": 2, "nested_arrays": 2, "nothing_much": 2, "promise": 3, "pipeline": 2, "http": 4}
