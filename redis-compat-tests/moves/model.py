"""What the cluster must hold: keys of every type with their values, written, read back and placed.

A model is {key: Entry}. Values are plain: bytes for a string, {field: value} for a hash, a list, a set, and
{member: score} for a sorted set. `deadline` is unix milliseconds, or None. `verify` reads every key and compares;
`placement` holds that each key lies on exactly one node, the one that owns its slot.
"""
import random
import time
from collections import namedtuple

from harness.routing import SLOTS, Routed, slot_of
from harness.topology import ranges
from harness.wire import Connection, encode, parse, plain

Entry = namedtuple("Entry", "kind value deadline")
KINDS = ("string", "hash", "list", "set", "zset")
# Elements of the big collections, and how many there are of each type.
BIG_ELEMENTS = 6000
BIG_PER_KIND = 4
BATCH = 200
# A deadline that passes during the run, or long after it.
SOON_SECONDS, LATE_SECONDS = (1, 25), (3600, 7200)


def now_ms():
    return int(time.time() * 1000)


def value_of(kind, elements, generator):
    texts = [b"%x-%d" % (generator.getrandbits(40), i) for i in range(elements)]
    if kind == "string":
        return b"".join(texts)
    if kind == "hash":
        return {text: b"v" + text for text in texts}
    if kind == "list":
        return texts
    if kind == "set":
        return set(texts)
    return {text: float(generator.randrange(-10000, 10000)) for text in texts}


def dataset(count, seed):
    """`count` keys: half of them strings, the rest spread over the other types; every fourth with a deadline."""
    generator, model = random.Random(seed), {}
    for index in range(count):
        kind = KINDS[generator.randrange(1, 5)] if index % 2 else "string"
        deadline = None
        if index % 4 == 3:
            span = SOON_SECONDS if generator.random() < 0.2 else LATE_SECONDS
            deadline = now_ms() + int(1000 * generator.uniform(*span))
        tag = b"{tag:%d}" % generator.randrange(count // 10 + 1) if index % 10 == 0 else b""
        elements = generator.choice((1, 2, 5, 20, 20, 150)) if index % 50 == 1 else generator.randrange(1, 6)
        model[b"data:%d:%b" % (index, tag)] = Entry(kind, value_of(kind, elements, generator), deadline)
    for kind in KINDS:
        for index in range(BIG_PER_KIND):
            elements = BIG_ELEMENTS * (20 if kind == "string" else 1)
            model[b"big:%b:%d" % (kind.encode(), index)] = Entry(kind, value_of(kind, elements, generator), None)
    return model


def writes(key, entry):
    """The commands that create a key, big collections in several."""
    if entry.kind == "string":
        yield ("SET", key, entry.value)
    elif entry.kind == "hash":
        yield from chunks("HSET", key, [word for pair in entry.value.items() for word in pair])
    elif entry.kind == "list":
        yield from chunks("RPUSH", key, entry.value)
    elif entry.kind == "set":
        yield from chunks("SADD", key, sorted(entry.value))
    else:
        yield from chunks("ZADD", key, [word for member, score in entry.value.items() for word in (repr(score), member)])
    if entry.deadline:
        yield ("PEXPIREAT", key, entry.deadline)


def chunks(command, key, words, size=1000):
    for start in range(0, len(words), size):
        yield (command, key, *words[start:start + size])


def fill(ports, model):
    """Write a model into a cluster at rest, pipelined to each node."""
    client = Routed(ports)
    by_port = {}
    for key, entry in model.items():
        by_port.setdefault(client.owner(slot_of(key)), []).extend(writes(key, entry))
    for port, commands in by_port.items():
        connection = client.connection(port)
        for start in range(0, len(commands), BATCH):
            batch = commands[start:start + BATCH]
            connection.send(b"".join(map(encode, batch)))
            for command, raw in zip(batch, connection.receive(len(batch))):
                if raw.startswith(b"-"):
                    raise RuntimeError("%s %s: %r" % (command[0], command[1], raw))
    client.close()


def read_command(key, kind):
    return {"string": ("GET", key), "hash": ("HGETALL", key), "list": ("LRANGE", key, 0, -1), "set": ("SMEMBERS", key),
            "zset": ("ZSCAN", key, 0, "COUNT", 1000000)}[kind]


def normal(kind, reply):
    """A reply as the model has the value, or None where there is no such key."""
    if reply is None or isinstance(reply, Exception):
        return reply
    if kind == "zset":
        if reply[0] != b"0":
            return RuntimeError("ZSCAN with a great COUNT did not end")
        pairs = iter(reply[1])
        return {member: float(score) for member, score in zip(pairs, pairs)} or None
    if kind == "hash":
        pairs = iter(reply)
        return dict(zip(pairs, pairs)) or None
    if kind == "set":
        return set(reply) or None
    return reply or None


def difference(entry, got):
    """What is wrong with a value that was read, or None."""
    if got == entry.value:
        return None
    if got is None:
        return "is lost"
    if isinstance(got, Exception) or entry.kind == "string":
        return "is %.80r, not %.80r" % (got, entry.value)
    missing = [item for item in entry.value if item not in got]
    return "has %d elements, not %d; missing %.100r" % (len(got), len(entry.value), missing[:3])


def verify(ports, model):
    """Read every key and its deadline; the list of what is wrong."""
    client, problems, items = Routed(ports), [], list(model.items())
    for start in range(0, len(items), BATCH):
        batch = items[start:start + BATCH]
        before = now_ms()
        values = client.pipeline([read_command(key, entry.kind) for key, entry in batch])
        left = client.pipeline([("PTTL", key) for key, entry in batch])
        after = now_ms()
        for (key, entry), reply, ttl in zip(batch, values, left):
            got = normal(entry.kind, reply)
            if entry.deadline and entry.deadline < after + 50:
                if got is not None and entry.deadline < before - 50:
                    problems.append("%s lives after its deadline" % key.decode())
                continue
            wrong = difference(entry, got)
            if wrong is None and entry.deadline and not before - 50 <= entry.deadline - ttl <= after + 50:
                wrong = "has the deadline %d, not %d" % (before + ttl, entry.deadline)
            if wrong is None and not entry.deadline and ttl != -1:
                wrong = "has the time to live %d" % ttl
            if wrong:
                problems.append("%s %s" % (key.decode(), wrong))
    client.close()
    return problems


def scan(connection):
    found, cursor = [], b"0"
    while True:
        cursor, keys = connection.call("SCAN", cursor, "COUNT", 5000)
        found += keys
        if cursor == b"0":
            return found


def counted(connection):
    """The nodes' own count of keys for each slot."""
    connection.send(b"".join(encode(("CLUSTER", "COUNTKEYSINSLOT", slot)) for slot in range(SLOTS)))
    return [plain(parse(raw)[0]) for raw in connection.receive(SLOTS)]


def alive(model, moment):
    return {key for key, entry in model.items() if not entry.deadline or entry.deadline > moment}


def placement(ports, model):
    """Whether each key is on exactly one node, its slot's owner: (lines that tell, problems)."""
    table, problems = ranges(ports[0]), []
    owners = [None] * SLOTS
    for first, last, port in table:
        owners[first:last + 1] = [port] * (last - first + 1)
    # A key whose deadline has passed may be counted until somebody asks for it, so they are asked for. Others expire
    # while the keys are counted: there are two bounds, which are equal when none does.
    expected, found, sizes, client = alive(model, now_ms()), {}, {}, Routed(ports)
    client.pipeline([("EXISTS", key) for key in model if key not in expected])
    client.close()
    for port in ports:
        connection = Connection(port)
        found[port], sizes[port] = scan(connection), connection.call("DBSIZE")
        connection.close()
    last = alive(model, now_ms())
    everything = [key for keys in found.values() for key in set(keys)]
    doubled = len(everything) - len(set(everything))
    lost = last - set(everything)
    strange = set(everything) - set(model)
    for what, number, sample in (("doubled", doubled, ""), ("lost", len(lost), sorted(lost)[:3]), ("unknown", len(strange), sorted(strange)[:3])):
        if number:
            problems.append("%d keys are %s %s" % (number, what, sample))
    if not len(last) <= sum(sizes.values()) <= len(expected):
        problems.append("DBSIZE sums to %d, but %d to %d keys are expected" % (sum(sizes.values()), len(last), len(expected)))
    lines = []
    for port in ports:
        connection = Connection(port)
        before, counts, after = connection.call("DBSIZE"), counted(connection), connection.call("DBSIZE")
        slots = sum(owner == port for owner in owners)
        connection.close()
        foreign = [key for key in found[port] if owners[slot_of(key)] != port]
        hidden = sum(count for slot, count in enumerate(counts) if owners[slot] != port)
        if foreign or hidden:
            problems.append("node %d has %d keys of slots that it does not own (it counts %d)" % (port, len(foreign), hidden))
        if not after <= sum(counts) <= before:
            problems.append("node %d: COUNTKEYSINSLOT sums to %d, DBSIZE is %d" % (port, sum(counts), after))
        repeated = len(found[port]) - len(set(found[port]))
        lines.append("    node %d: %5d slots, %6d keys%s" % (port, slots, sizes[port], ", SCAN repeated %d" % repeated if repeated else ""))
    return lines, problems
