"""Generates arguments for any command from the argument tree that redis-server's COMMAND DOCS gives.

The reference documents every option of every command, so a command that the target learns is covered at once.
What the tree cannot say (which values are interesting, which would cost 512 MB) is in the tables of this file.
"""
from harness.wire import parse

# Keys are prefixed by the type that usually lives there, so that most commands find their own type.
PREFIX = {"string": "s", "bitmap": "s", "list": "l", "set": "t", "sorted-set": "z", "geo": "z", "hash": "h",
          "stream": "x", "hyperloglog": "p"}
KEYS = {prefix: [b"%s%d" % (prefix.encode(), i) for i in range(4)] for prefix in "sltzhxp"}
KEYS["s"] += [b"", b"{tag}s", b"bin\x00\xff\r\n"]
ALL_KEYS = [key for keys in KEYS.values() for key in keys] + [b"missing"]
# Ranges by member are specified only where all scores are the same: these commands have keys that nothing else writes but
# ZADD with one score.
LEX_KEYS = [b"y0", b"y1", b"y2"]
# Which of several places at the same distance COUNT leaves is not specified either: it is asked of these keys alone, which
# nothing but GEOADD writes, with places that are never the same.
GEO_KEYS = [b"g0", b"g1", b"g2"]
LEX = {"zrangebylex", "zrevrangebylex", "zlexcount", "zremrangebylex"}

SMALL = ["0", "1", "-1", "2", "3", "5", "10", "-2", "-3", "-100", "100"]
ODD = ["", "abc", " 1", "1 ", "+1", "01", "1.5", "-0", "0x10", "9223372036854775807", "-9223372036854775808",
       "9223372036854775808", "99999999999999999999", "1e3", "nan"]
WORDS = [b"a", b"b", b"c", b"d", b"alpha", b"beta", b"1", b"2", b"10", b"-5", b"3.5", b"", b"x" * 44, b"y" * 45,
         b"z" * 64, b"w" * 65, b"\x00\xff\x80", b"with space", b"line\r\nbreak", b"12345678901234567890",
         b"9223372036854775807", b"q" * 300]
FIELDS = [b"a", b"b", b"c", b"d", b"e", b"1", b"2", b"3", b"", b"f" * 64, b"g" * 65]
SCORES = ["0", "1", "2", "-1.5", "3.25", "1e3", "inf", "-inf", "0.1", "2.3333", "+inf", "1.7976931348623157e308"]
BAD_TIMES = ["0", "-1", "abc", "9223372036854775807", "-9223372036854775808", "9223372036854775", "99999999999999999999"]

# By argument name: (usual values, odd values). Deadlines are far or past, never near: what expires is under the
# generator's control (see units.elapse). Relative deadlines are drawn from wide ranges: of two equal ones GT and LT
# would compare the milliseconds between the two commands, which differ between the servers. Offsets and counts are
# bounded, since a single one can cost 512 MB.
BY_NAME = {
    "seconds": (range(100, 10_000_000), BAD_TIMES), "milliseconds": (range(100_000, 10_000_000_000), BAD_TIMES),
    "unix-time-seconds": (["4102444800", "1", "4102444801"], BAD_TIMES),
    "unix-time-milliseconds": (["4102444800000", "1", "4102444800999"], BAD_TIMES),
    "timeout": (["0.001", "0.002"], ["-1", "abc", "", "nan"]),
    "offset": (["0", "1", "5", "7", "20", "100", "-1", "#1"], ["abc", "", "4294967296", "536870912", "-536870913"]),
    "count": (["1", "2", "3", "0", "-1", "-2", "100"], ["abc", "", "1.5", "9223372036854775808"]),
    "index": (["0", "1", "-1", "2", "5", "-100"], ["abc", "9223372036854775807", "9223372036854775808"]),
    "index1": (["0", "1", "2", "3"], ["16", "-1", "abc"]), "index2": (["0", "1", "2", "3"], ["16", "-1", "abc"]),
    "db": (["0", "1", "2", "3"], ["15", "16", "-1", "abc"]),
    "destination-db": (["0", "1", "2", "3"], ["16", "-1", "abc"]),
    "increment": (["1", "-1", "10", "1000", "-7"], ODD), "decrement": (["1", "-1", "10", "1000", "-7"], ODD),
    "bit": (["0", "1"], ["2", "-1", "abc"]), "cursor": (["0"], ["abc", ""]),
    "start": (["0", "1", "2", "-1", "-3", "-100"], ["abc", "", "9223372036854775807"]),
    "stop": (["-1", "0", "1", "2", "5", "100"], ["abc", "-9223372036854775808"]),
    "end": (["-1", "0", "1", "2", "5", "100"], ["abc", "-9223372036854775808"]),
    "protover": (["2", "3"], ["1", "4", "abc"]), "len": (["0", "1", "2", "5"], ["abc", "-1"]),
    "longitude": (["13.361389", "15.087269", "2.35"], ["180", "-180", "181", "abc", "inf"]),
    "latitude": (["38.115556", "37.502669", "48.85"], ["85.05112878", "86", "-90", "abc", "nan"]),
    "radius": (["200", "1", "10000", "0", "1000", "3000.5", "500000", "5000000"], ["abc", "-1", "inf"]),
    "width": (["400", "2000", "9000.25", "0", "3000000"], ["-1", "abc"]),
    "height": (["400", "1000", "5000", "0", "7000000"], ["-1", "abc"]),
    "id": (["1-1", "2-1", "3-3", "5", "0", "0-0"], ["abc", "$", ">", "-", "18446744073709551616", "1-"]),
    "group": (["g1", "g2"], ["none"]), "consumer": (["c1", "c2"], ["none"]),
    "encoding": (["u8", "i8", "u4", "i16", "u63", "i64"], ["u64", "i65", "x8", "u0"]),
    "type": (["string", "list", "hash", "set", "zset", "stream"], ["nosuch"]),
    "operation": (["AND", "OR", "XOR", "NOT"], ["NOPE"]), "field": (FIELDS, WORDS), "member": (FIELDS, WORDS),
    "connection-name": (["name-1", "me"], ["with space", "", "\n"]),
}
# By command and argument name, where the general table would be dull.
BY_COMMAND = {
    ("zrangebylex", "min"): "lex", ("zrangebylex", "max"): "lex", ("zrevrangebylex", "min"): "lex",
    ("zrevrangebylex", "max"): "lex", ("zlexcount", "min"): "lex", ("zlexcount", "max"): "lex",
    ("zremrangebylex", "min"): "lex", ("zremrangebylex", "max"): "lex", ("zrange", "min"): "range", ("zrange", "max"): "range",
    ("zrangestore", "min"): "range", ("zrangestore", "max"): "range",
    ("zrange", "start"): "range", ("zrange", "stop"): "range",
    ("incrbyfloat", "increment"): "float", ("hincrbyfloat", "increment"): "double", ("zincrby", "increment"): "float",
    ("xreadgroup", "id"): "read", ("xreadgroup", "milliseconds"): "short", ("xread", "milliseconds"): "short",
    ("xadd", "id"): "add",
}
NAMED = {
    "lex": (["-", "+", "[a", "(b", "[c", "(alpha"], ["a", "", "[", "abc"]),
    "range": (["0", "-1", "1", "5", "(1", "[a", "(b", "-inf", "+inf", "-", "+"], ["abc"]),
    "float": (["0.5", "1.25", "-3", "1e3", "0.1", "3.3333"], ["abc", "nan", "inf", "", "1e400", " 1"]),
    # Without what only a long double holds: redis-server would make a key of it that the target does not have.
    "double": (["0.5", "1.25", "-3", "1e3", "0.1", "3.3333"], ["abc", "nan", "inf", "", " 1"]),
    "short": (["1", "2"], ["-1", "abc"]),
    "read": ([">", ">", ">", "0", "1-1"], ["$", "abc"]),
    "add": (["1-1", "2-1", "3-3", "5", "6", "7-*", "8-1", "9-*"], ["*", "0-0", "abc", "18446744073709551616", "1-"]),
    "score": (["-inf", "+inf", "(1", "0", "1", "3.25", "(0", "100"], ["abc", "nan", "("]),
}
PATTERNS = [b"*", b"s*", b"?[0-2]", b"[^s]*", b"l1", b"\\*", b"*[a-c", b"", b"**1", b"h?", b"{*"]
STREAM_BOUNDS = (["-", "+", "1", "1-1", "(1-1", "5"], ["abc", "("])


def documented(connection):
    """Every command of the reference with its flags, group and argument tree: {"get": {...}, "object|encoding": ...}."""
    connection.send(b"*2\r\n$7\r\nCOMMAND\r\n$4\r\nDOCS\r\n*1\r\n$7\r\nCOMMAND\r\n")
    docs, infos = (parse(raw)[0] for raw in connection.receive(2))
    result, flags = {}, {}
    for info in infos.value:
        flags[info.value[0].value.decode()] = {flag.value.decode() for flag in info.value[2].value}
    for i in range(0, len(docs.value), 2):
        name = docs.value[i].value.decode()
        entry = as_map(docs.value[i + 1])
        entries = [(name, entry)]
        if "subcommands" in entry:
            inner = entry["subcommands"].value
            entries += [(inner[j].value.decode(), as_map(inner[j + 1])) for j in range(0, len(inner), 2)]
        for full_name, fields in entries:
            result[full_name] = {
                "group": fields["group"].value.decode(), "container": "subcommands" in fields,
                "flags": flags.get(name, set()),
                "arguments": [argument(item) for item in fields["arguments"].value] if "arguments" in fields else [],
            }
    return result


def as_map(reply):
    return {reply.value[i].value.decode(): reply.value[i + 1] for i in range(0, len(reply.value), 2)}


def argument(reply):
    """One node of the tree, as a dictionary of plain values."""
    fields = as_map(reply)
    flags = [flag.value.decode() for flag in fields["flags"].value] if "flags" in fields else []
    return {
        "name": fields["name"].value.decode(), "type": fields["type"].value.decode(),
        "token": fields["token"].value if "token" in fields else None, "optional": "optional" in flags,
        "multiple": "multiple" in flags, "multiple_token": "multiple_token" in flags,
        "arguments": [argument(item) for item in fields["arguments"].value] if "arguments" in fields else [],
    }


def takes_deadline(tree):
    """Whether a wrong order of arguments could give a key a near deadline, which would make replies depend on time."""
    return any(node["name"].split("-")[0] in ("seconds", "milliseconds", "unix") or takes_deadline(node["arguments"]) for node in tree)


class Grammar:
    """Draws the arguments of one command after another from a random generator."""

    def __init__(self, commands, generator):
        self.commands = commands
        self.random = generator

    def draw(self, name):
        """The words of one invocation, command name first. About one in fourteen is broken on purpose."""
        entry = self.commands[name]
        words = [word.encode() for word in name.split("|")]
        keys = KEYS[PREFIX[entry["group"]]] if entry["group"] in PREFIX else ALL_KEYS
        self.one_score = name == "zadd" and self.random.random() < 0.25
        if name in LEX or self.one_score:
            keys = LEX_KEYS
        self.name, self.keys = name, keys
        # One invocation in four uses integers only (intset), and lists are sometimes long (past the packed encodings).
        self.integers = self.random.random() < 0.25
        self.long = self.random.random() < 0.04 and "write" in entry["flags"]
        tree = entry["arguments"]
        for i, node in enumerate(tree):
            if node["name"] == "numkeys" and i + 1 < len(tree):
                drawn = self.node(tree[i + 1])
                words.append(b"%d" % len(drawn) if self.random.random() < 0.9 else self.pick(["0", "-1", "9", "abc"]))
                words += drawn
            elif not (i and tree[i - 1]["name"] == "numkeys"):
                words += self.node(node)
        if self.random.random() < 0.5:
            words[0] = words[0].upper()
        source = 2 if name == "geosearchstore" else 1
        has_count = any(word.upper() == b"COUNT" for word in words)
        if entry["group"] == "geo" and (has_count or self.random.random() < 0.7):
            words[source] = self.random.choice(GEO_KEYS)
        if name == "geosearchstore":
            # In another order of its arguments it would write the keys of GEOADD.
            return words
        is_lex = name in ("zrange", "zrangestore") and b"BYLEX" in (word.upper() for word in words)
        if is_lex:
            words[1 if name == "zrange" else 2] = self.random.choice(LEX_KEYS)
        if is_lex or self.one_score:
            return words
        if "blocking" not in entry["flags"] and self.random.random() < 0.07:
            words = self.mutate(words, arity_only=takes_deadline(tree))
            if name in ("zrank", "zrevrank"):
                # A fourth word is WITHSCORE since Redis 7.2.
                words = words[:3]
        return words

    def node(self, node):
        if node["optional"] and self.random.random() < 0.65:
            return []
        if not node["multiple"]:
            return self.once(node)
        words = []
        for i in range(150 if self.long else self.random.choice((1, 1, 2, 3))):
            words += self.once(node, with_token=i == 0 or node["multiple_token"])
        return words

    def once(self, node, with_token=True):
        words = []
        if node["token"] is not None and with_token and node["token"]:
            token = node["token"]
            words.append(token if self.random.random() < 0.8 else token.lower())
        if node["type"] == "pure-token":
            return words
        if node["type"] == "oneof":
            return words + self.node(self.random.choice(node["arguments"]))
        if node["type"] == "block":
            for child in node["arguments"]:
                words += self.node(child)
            return words
        return words + [self.value(node)]

    def value(self, node):
        name, kind = node["name"], node["type"]
        if self.one_score and name == "score":
            return b"0"
        if kind == "key" and self.keys is LEX_KEYS:
            return self.random.choice(LEX_KEYS)
        if kind == "key":
            return self.random.choice(self.keys if self.random.random() < 0.85 else ALL_KEYS)
        if kind == "pattern":
            return self.random.choice(PATTERNS)
        if self.name == "set" and kind == "unix-time":
            # SET alone keeps a key whose deadline is past until someone looks: DBSIZE would depend on the moment.
            return self.pick(["4102444800000", "4102444800999", "0", "-1", "abc"])
        if self.name in ("xread", "xreadgroup") and name == "milliseconds":
            return self.pick(["1", "2"])
        if self.name.startswith("x") and name in ("start", "end"):
            return self.weighted(STREAM_BOUNDS)
        if kind == "string" and (self.long or self.integers) and name in ("member", "element", "field", "value"):
            return b"%d" % self.random.randrange(1000 if self.long else 20)
        named = BY_COMMAND.get((self.name, name))
        if named is None and kind == "double" and name in ("min", "max"):
            named = "score"
        if named:
            return self.weighted(NAMED[named])
        if name in ("longitude", "latitude") and self.random.random() < 0.95:
            east = name == "longitude"
            least, most = (13, 16) if east and self.random.random() < 0.5 else (-180, 180) if east else (-85, 85)
            return b"%.6f" % self.random.uniform(least, most)
        if name in BY_NAME:
            return self.weighted(BY_NAME[name])
        if kind == "unix-time":
            return self.weighted(BY_NAME["unix-time-seconds"])
        if kind == "integer":
            return self.weighted((SMALL, ODD))
        if kind == "double":
            return self.weighted((SCORES, ["abc", "nan", "", "1e999"]))
        return self.random.choice(WORDS)

    def weighted(self, pools):
        return self.pick(pools[0] if self.random.random() < 0.92 else pools[1])

    def pick(self, pool):
        chosen = self.random.choice(pool)
        return chosen if isinstance(chosen, bytes) else str(chosen).encode()

    def mutate(self, words, arity_only):
        """Break an invocation: arity, order, types, unknown words."""
        words = list(words)
        kind = self.random.randrange(2 if arity_only else 5)
        place = self.random.randrange(1, len(words)) if len(words) > 1 else 0
        if kind == 0 and place:
            words.pop()
        elif kind == 1:
            words.append(self.random.choice(WORDS[:12]))
        elif kind == 2 and place:
            words[place] = self.random.choice([b"abc", b"", b"0", b"-1", b"NX", b"EX", b"1.0"])
        elif kind == 3 and place > 1:
            words[place], words[place - 1] = words[place - 1], words[place]
        elif kind == 4 and place:
            words.insert(place, words[place])
        return words
