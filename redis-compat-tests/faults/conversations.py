"""Conversations whose every reply is known: as data, compared byte for byte with what redis-server says to the same."""
from collections import namedtuple

from harness.wire import encode

EVERYWHERE = ("one node", "cluster", "proxy")
# Keys of two slots: a cluster's node answers CROSSSLOT, as it should.
NOT_CLUSTER = ("one node", "proxy")

# writes: what is sent at once, ";" between requests; the next is sent when all replies are there. more: messages that
# come beside the replies. rounds: a race is run more than once. answer: where redis-server has none of its own, the
# beginnings of the replies to all writes.
Conversation = namedtuple("Conversation", "name writes places more rounds answer", defaults=(EVERYWHERE, 0, 1, None))

CONVERSATIONS = [
    Conversation("nothing overtakes EXEC", ["SET {b} 1", "WATCH {b}", "MULTI; INCR {b}; EXEC; INCR {b}"], rounds=200),
    Conversation("a read does not overtake EXEC", ["SET {b} 1", "WATCH {b}", "MULTI; INCR {b}; EXEC; GET {b}"], rounds=200),
    Conversation("a request of two nodes does not overtake EXEC", ["SET {b} 1; SET {a} 1", "WATCH {b}", "MULTI; INCR {b}; EXEC; MGET {a} {b}"],
                 NOT_CLUSTER, rounds=200),
    Conversation("WATCH; UNWATCH", ["WATCH {a}; UNWATCH"], rounds=12),
    Conversation("WATCH; MULTI; DISCARD", ["WATCH {a}; MULTI; DISCARD"], rounds=12),
    Conversation("WATCH is free again after EXEC of two slots", ["WATCH {a}; MULTI; SET {a} 1; SET {b} 1; EXEC", "WATCH {a}; UNWATCH"], ("proxy",),
                 rounds=12, answer=["+OK", "+OK", "+QUEUED", "+QUEUED", "-", "+OK", "+OK"]),
    Conversation("MSET, a value too few", ["MSET {a} 1 {b}; GET {a}"], NOT_CLUSTER),
    Conversation("MSET of one key, a value too few", ["MSET {a}; GET {a}"]),
    Conversation("EXISTS, DEL, MGET and TOUCH without keys", ["EXISTS; DEL; MGET; TOUCH; UNLINK"]),
    Conversation("FLUSHALL NEVER", ["SET {a} 1; FLUSHALL NEVER; GET {a}; DEL {a}"]),
    Conversation("a message of one's own stands where it belongs", ["HELLO 3", "SUBSCRIBE c; PUBLISH c 1; UNSUBSCRIBE c; GET {a}"], more=1, rounds=50),
    Conversation("INCRBYFLOAT by next to nothing", ["SET {a} 5200; INCRBYFLOAT {a} 1e-400; DEL {a}"]),
    Conversation("a score of -0", ["ZADD {a} -0 m; ZSCORE {a} m; DEL {a}"]),
    Conversation("SADD of 1,100,000 members", ["DEL {a}", "SADD {a} {members}", "SCARD {a}; UNLINK {a}"], ("one node", "proxy")),
]
MEMBERS = [b"%d" % number for number in range(1_100_000)]


def requests(write, a, b):
    """The requests of one write, encoded."""
    encoded = []
    for text in write.split(";"):
        words = [word.format(a=a, b=b, members="{members}") for word in text.split()]
        encoded.append(encode(words[:-1] + MEMBERS if words[-1] == "{members}" else words))
    return encoded


def hold(conversation, place, a, b):
    """The raw replies to one round."""
    connection, replies = place.connect(b if "{a}" not in conversation.writes[0] and "{b}" in conversation.writes[0] else a), []
    try:
        for number, write in enumerate(conversation.writes):
            sent = requests(write, a, b)
            connection.send(b"".join(sent))
            last = number == len(conversation.writes) - 1
            received = connection.receive(len(sent) + (conversation.more if last else 0))
            # HELLO tells the number of the client and the version of the server.
            replies += ["HELLO"] if write.startswith("HELLO") else received
    finally:
        connection.close()
    return replies


def problem(conversation, place, places):
    """What is wrong in this place, or None."""
    if conversation.answer is None:
        wanted = hold(conversation, places.redis, places.a, places.b)
    for number in range(conversation.rounds):
        got = hold(conversation, place, places.a, places.b)
        if conversation.answer is not None:
            good = len(got) == len(conversation.answer) and all(raw.startswith(start.encode()) for raw, start in zip(got, conversation.answer))
            wanted = conversation.answer
        else:
            good = got == wanted
        if not good:
            return "round %d: %.300r, not %.300r" % (number + 1, got, wanted)
    return None


def run(places, check):
    for conversation in CONVERSATIONS:
        for place in places.tested:
            if place.name in conversation.places:
                check(place.name, conversation.name, lambda: problem(conversation, place, places))
