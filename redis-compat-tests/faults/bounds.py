"""One client or one value must not hurt the others: bounds of memory and of order. The limits of time only say "at all"."""
import threading

from faults.places import eventually
from harness.routing import slot_of
from harness.wire import Connection, encode

MB = 1 << 20
# A reader that always has this many replies of 1 MB under way, and what the server may grow by meanwhile.
BEHIND, GROWTH_MAX = 16, 64 * MB
READS = 400
SHORT_LIVED = 300_000
PAIRS = 100_000
MEMBERS = 200_000


def owner(place, key):
    """The server that has the key."""
    port = place.owners.get(slot_of(key), place.server.port)
    return next(server for server in place.topology.servers if server.port == port)


def reader_behind(place, key):
    connection, server = place.connect(key), owner(place, key)
    try:
        connection.call("SET", key, "v" * MB)
        request, before, peak = encode(("GET", key)), server.memory(), 0
        connection.send(request * BEHIND)
        for number in range(READS):
            connection.receive(1)
            connection.send(request)
            if number % 50 == 0:
                peak = max(peak, server.memory())
        connection.receive(BEHIND)
        connection.call("DEL", key)
    finally:
        connection.close()
    return None if peak - before < GROWTH_MAX else "grew by %d MB" % ((peak - before) // MB)


def short_lives_end(place, key):
    """Nobody asks for the keys again: they go by themselves."""
    connection, beside = place.connect(key), Connection(owner(place, key).port)
    try:
        connection.call("FLUSHALL")
        for first in range(0, SHORT_LIVED, 1000):
            connection.send(b"".join(encode(("SET", "{%s}%d" % (key, number), "v", "PX", "1")) for number in range(first, first + 1000)))
            connection.receive(1000)
        return eventually(lambda: beside.call("DBSIZE") == 0, "no key is left", limit=60)
    finally:
        connection.close()
        beside.close()


def many_pairs(place, key):
    """Nothing is quadratic in what one request says: each pair again, and each again with another score."""
    connection = place.connect(key)
    try:
        scores = [word for number in range(PAIRS) for word in (number, number // 2)]
        answer = connection.call("ZADD", key, *scores), connection.call("ZADD", key, "CH", *scores[::-1]), connection.call("ZCARD", key)
        connection.call("DEL", key)
        return None if answer[0] == PAIRS // 2 and all(isinstance(part, int) for part in answer) else "%r" % (answer,)
    finally:
        connection.close()


def beside_work(place, key, request, questions):
    """Two clients send `request` without a pause; each question of another must be answered."""
    over, threads = threading.Event(), []

    def work(connection):
        while not over.is_set():
            connection.send(request)
            connection.receive(1)
        connection.send(encode(("ECHO", "over")))
        while connection.receive(1) != [b"$4\r\nover\r\n"]:
            pass
        connection.close()

    beside = place.connect(key)
    try:
        for _ in range(2):
            threads.append(threading.Thread(target=work, args=(place.connect(key),)))
            threads[-1].start()
        for _ in range(20):
            for words in questions:
                if isinstance(answer := beside.call(*words), Exception):
                    return "%s: %s" % (words[0], answer)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        beside.close()
    return None


def flood(place, key):
    request = encode(("SET", key, "v")) * 100
    return beside_work(place, key, request, [("PING",), ("GET", key)])


def large_replies(place, key):
    connection, members = place.connect(key), "{%s}members" % key
    try:
        connection.call("SADD", members, *range(MEMBERS // 4))
        return beside_work(place, key, encode(("SMEMBERS", members)), [("PING",), ("DBSIZE",), ("SCAN", "0"), ("GET", key)])
    finally:
        connection.call("DEL", members)
        connection.close()


def used(direct):
    return int(direct.call("INFO", "memory").split(b"used_memory:")[1].split(b"\r")[0])


def steady(direct):
    """Memory in use when what was removed before has been freed."""
    readings = [used(direct)]

    def same():
        readings.append(used(direct))
        return abs(readings[-1] - readings[-2]) < MB // 16

    eventually(same, "memory is steady")
    return readings[-1]


def what_is_large_is_freed(place, key):
    connection, beside = place.connect(key), Connection(owner(place, key).port)

    try:
        for remove in (("UNLINK", key), ("FLUSHALL",)):
            connection.call("DEL", key)
            before = steady(beside)
            connection.call("SADD", key, *range(MEMBERS))
            full = used(beside)
            connection.call(*remove)
            if full - before < 4 * MB:
                return "%d members take %d bytes" % (MEMBERS, full - before)
            if problem := eventually(lambda: used(beside) < before + (full - before) // 4, "%s frees memory" % " ".join(remove[:1])):
                return problem
    finally:
        connection.close()
        beside.close()
    return None


def queues_count(place, key):
    """What waits for EXEC counts against maxmemory, and is free after DISCARD."""
    queueing, beside, direct = place.connect(key), place.connect(key), Connection(owner(place, key).port)
    holder = queueing if place.name != "proxy" else direct
    try:
        direct.call("CONFIG", "SET", "maxmemory", steady(direct) + 16 * MB)
        holder.call("MULTI")
        refused = [reply for reply in (holder.call("ECHO", "x" * MB) for _ in range(24)) if str(reply).startswith("OOM")]
        holder.call("DISCARD")
        if not refused:
            return "24 MB are queued where 16 MB are left"
        return eventually(lambda: beside.call("SET", key, "v") == b"OK", "SET is executed after DISCARD")
    finally:
        direct.call("CONFIG", "SET", "maxmemory", "0")
        for connection in (queueing, beside, direct):
            connection.close()


def many_watches(place, key):
    """2,000 absent keys are watched: writes to others do not concern EXEC, one of them does."""
    watching, beside = place.connect(key), place.connect(key)
    try:
        watched = ["{%s}watched-%d" % (key, number) for number in range(2000)]
        for touched, wanted in (([], [b"PONG"]), (watched[1234:1235], None)):
            watching.call("WATCH", *watched)
            others = ["{%s}other-%d" % (key, number) for number in range(5000)] + touched
            beside.send(b"".join(encode(("SET", name, "v")) for name in others))
            beside.receive(len(others))
            watching.call("MULTI")
            watching.call("PING")
            if (answer := watching.call("EXEC")) != wanted:
                return "EXEC: %r, not %r" % (answer, wanted)
        beside.call("FLUSHALL")
    finally:
        watching.close()
        beside.close()
    return None


CASES = [
    ("queues of transactions count against maxmemory", queues_count),
    ("400 x 1 MB to a reader that is a little behind", reader_behind),
    ("300,000 keys with PX 1 go by themselves", short_lives_end),
    ("ZADD of 100,000 pairs, with repetitions", many_pairs),
    ("PING beside a flood", flood),
    ("DBSIZE and SCAN beside SMEMBERS", large_replies),
    ("UNLINK and FLUSHALL of large values free memory", what_is_large_is_freed),
    ("2,000 watched keys that are absent", many_watches),
]


def run(places, check):
    for name, case in CASES:
        for place in places.tested:
            check(place.name, name, lambda: case(place, places.a))
