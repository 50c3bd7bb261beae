"""Turns commands into units: what must be sent together, on one of two connections, to be comparable.

A unit is usually one command. A random command comes after a read of its collection and is followed by a reset of
its key, so that both servers go on with equal data; a key with a near deadline comes with a pause that is longer;
SCAN is followed to its end. Shrinking removes whole units, so none of them loses its sense.
"""
import random
from collections import namedtuple

from grammar import ALL_KEYS, KEYS, Grammar

# commands: lists of words, or PAUSE. kind: "plain", or "scan" (iterate the cursor of the only command).
Unit = namedtuple("Unit", "connection commands kind")
PAUSE = "pause"
PAUSE_SECONDS = 0.012

GROUP_WEIGHTS = {"string": 30, "generic": 24, "list": 9, "set": 9, "hash": 9, "sorted-set": 9, "bitmap": 6, "stream": 5,
                 "hyperloglog": 3, "geo": 3, "transactions": 8, "connection": 4, "server": 2, "pubsub": 1}
RARE = {"flushdb", "flushall", "swapdb", "reset", "hello", "select", "keys", "randomkey"}
SAMPLERS = {"spop": b"SMEMBERS", "srandmember": b"SMEMBERS", "hrandfield": b"HGETALL", "zrandmember": b"ZRANGE"}
SCANS = ("scan", "hscan", "sscan", "zscan")


class Units:
    """An endless, reproducible sequence of units over `commands` (see grammar.documented)."""

    def __init__(self, commands, seed):
        self.random = random.Random(seed)
        self.grammar = Grammar(commands, self.random)
        self.commands = commands
        self.groups = {}
        for name, entry in sorted(commands.items()):
            if not entry["container"]:
                self.groups.setdefault(entry["group"], []).append(name)
        self.in_multi = [False, False]

    def has(self, *names):
        return all(name.lower() in self.commands for name in names)

    def pick_name(self):
        groups = sorted(self.groups)
        group = self.random.choices(groups, [GROUP_WEIGHTS.get(name, 1) for name in groups])[0]
        names = self.groups[group]
        return self.random.choices(names, [self.weight(name) for name in names])[0]

    def weight(self, name):
        if name == "xreadgroup":
            return 2
        if "blocking" in self.commands[name]["flags"]:
            return 0.05
        if name == "object|encoding":
            return 5
        return 0.15 if name in RARE else 1

    def episode(self, count):
        """The units of one episode, `count` commands or a few more; it begins with both connections reset."""
        units = [Unit(0, [[b"FLUSHALL"]], "plain")]
        if self.has("xgroup|create"):
            units.append(self.groups_of_streams(0, KEYS["x"][0]))
        size, connection = 1, 0
        while size < count:
            if self.random.random() < 0.02:
                connection = 1 - connection
            unit = self.unit(connection)
            units.append(unit)
            size += len(unit.commands)
        for connection in (0, 1):
            if self.in_multi[connection]:
                units.append(Unit(connection, [[b"EXEC"]], "plain"))
        return units

    def unit(self, connection):
        if not self.in_multi[connection] and self.random.random() < 0.004 and self.has("set", "exists"):
            return self.elapse(connection)
        name = self.pick_name()
        if not self.in_multi[connection] and name.startswith("xgroup|") and self.random.random() < 0.7:
            return self.groups_of_streams(connection, self.random.choice(KEYS["x"]))
        words = self.grammar.draw(name)
        if name == "xadd" and b"*" in words and self.random.random() < 0.9:
            # The id that * stands for is each server's own, and the stream has to go.
            words[words.index(b"*")] = b"%d-*" % self.random.randrange(1, 60)
        if self.in_multi[connection]:
            if self.random.random() < 0.15:
                words, name = [b"EXEC"], "exec"
            elif self.is_special(name, words):
                words, name = [b"PING"], "ping"
        if name == "multi" and len(words) == 1:
            self.in_multi[connection] = True
        elif name in ("exec", "discard", "reset"):
            self.in_multi[connection] = False
        if not self.in_multi[connection] and self.is_special(name, words):
            return self.special(connection, name, words)
        return Unit(connection, [words], "plain")

    @staticmethod
    def groups_of_streams(connection, key):
        """Nearly no random command names a group that is there, unless there are some."""
        return Unit(connection, [[b"XGROUP", b"CREATE", key, group, b"0", b"MKSTREAM"] for group in (b"g1", b"g2")], "plain")

    def is_special(self, name, words):
        return (name in SAMPLERS or name in SCANS or name in ("randomkey", "hello", "incrbyfloat", "hincrbyfloat")
                or (name == "xadd" and b"*" in words) or self.converts(name, words) or "blocking" in self.commands[name]["flags"])

    @staticmethod
    def converts(name, words):
        """In Redis SORT makes a skiplist of the sorted set that it reads, and it stays one: the key goes."""
        return name in ("sort", "sort_ro") and len(words) > 1

    def special(self, connection, name, words):
        """A command whose reply needs company to be comparable."""
        key = words[1] if len(words) > 1 else b"s0"
        if name in SCANS:
            return Unit(connection, [words], "scan")
        if name == "randomkey":
            return Unit(connection, [[b"KEYS", b"*"], words] if self.has("keys") else [[b"PING"]], "plain")
        if name in SAMPLERS:
            reader = SAMPLERS[name]
            if not self.has(reader.decode(), "del"):
                # Nothing else can read the collection: only the whole of it, or nothing, is predictable.
                words = words[:1] + ([key, b"1000"] if name == "spop" else [b"missing"])
                return Unit(connection, [words], "plain")
            before = [reader, key] + ([b"0", b"-1", b"WITHSCORES"] if reader == b"ZRANGE" else [])
            after = [[b"DEL", key]] if name == "spop" else []
            return Unit(connection, [before, words] + after, "plain")
        if name == "hello" and self.has("client|setname"):
            # Redis has taken the name when it refuses an option behind it; here a request that is refused does nothing.
            return Unit(connection, [words, [b"CLIENT", b"SETNAME", b"known"]], "plain")
        if name == "incrbyfloat":
            return Unit(connection, [words, [b"SET", key, b"10"]], "plain")
        if name in ("hincrbyfloat", "xadd") or self.converts(name, words):
            return Unit(connection, [words, [b"DEL", key]], "plain")
        return Unit(connection, [words], "plain")

    def elapse(self, connection):
        """A key that expires while nobody looks, then is touched, so that both servers have deleted it."""
        key = self.random.choice(ALL_KEYS)
        option = self.random.choice([[b"PX", b"5"], [b"PX", b"1"]])
        return Unit(connection, [[b"SET", key, b"soon"] + option, PAUSE, [b"EXISTS", key]], "plain")


def audit_commands(kind, key):
    """The commands that read all of a key of TYPE `kind`."""
    reader = {b"string": [b"GET", key], b"list": [b"LRANGE", key, b"0", b"-1"], b"set": [b"SMEMBERS", key],
              b"hash": [b"HGETALL", key], b"zset": [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
              b"stream": [b"XRANGE", key, b"-", b"+"]}.get(kind)
    return [words for words in ([b"PTTL", key], [b"OBJECT", b"ENCODING", key], reader) if words]
