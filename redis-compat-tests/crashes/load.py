"""The load of the crashes: which keys a writer has, what it sends for a number, and what a server has of it."""
import threading

from harness.wire import Closed, Connection, encode, parse, plain

WRITERS = 6
READERS = 2
PIPELINE = 8
# A list is cut from its front to about this length, so that it can be looked at after each round.
LIST_LENGTH = 400
# Replies to what a writer sends for a number.
STEP_REPLIES = 9

# Whether all keys of a writer are in one slot, as transactions of a cluster need it.
in_one_slot = False


def key(kind, w):
    """A key of a writer."""
    return (b"%b:{%d}" if in_one_slot else b"%b:%d") % (kind, w)


def step(w, value):
    """What a writer sends for a number: SET, INCR, RPUSH, a transaction of three, LTRIM."""
    text = b"%d" % value
    out = [encode([b"SET", key(b"s", w), text]), encode([b"INCR", key(b"c", w)])]
    out += [encode([b"RPUSH", key(b"l", w), text])]
    out += [encode([b"MULTI"]), encode([b"SET", key(b"t1", w), text]), encode([b"HSET", key(b"t2", w), b"f", text])]
    out += [encode([b"ZADD", key(b"t3", w), text, b"m"]), encode([b"EXEC"])]
    out += [encode([b"LTRIM", key(b"l", w), -LIST_LENGTH, -1])]
    return b"".join(out)


class Reader(threading.Thread):
    """Remembers the greatest number that it has seen of each writer."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seen = port, [0] * WRITERS

    def run(self):
        try:
            connection = Connection(self.port)
            while True:
                connection.send(b"".join(encode([b"GET", key(b"s", w)]) for w in range(WRITERS)))
                for w, reply in enumerate(connection.receive(WRITERS)):
                    value = plain(parse(reply)[0])
                    if isinstance(value, bytes):
                        self.seen[w] = max(self.seen[w], int(value))
        except (Closed, OSError):
            pass


def integer(value):
    return int(value) if value is not None else 0


def look(port, w):
    """What the server has of a writer's keys."""
    connection = Connection(port)
    values = {
        "s": integer(connection.call("GET", key(b"s", w))),
        "c": integer(connection.call("GET", key(b"c", w))),
        "t1": integer(connection.call("GET", key(b"t1", w))),
        "t2": integer(connection.call("HGET", key(b"t2", w), "f")),
        "t3": integer(connection.call("ZSCORE", key(b"t3", w), "m")),
        "l": [int(element) for element in connection.call("LRANGE", key(b"l", w), 0, -1)],
    }
    connection.close()
    return values


def settle(port, w, value):
    """All keys of a writer go on from one number. Whether the server has done all of it."""
    connection = Connection(port)
    commands = [("SET", key(b"s", w), value), ("SET", key(b"c", w), value), ("DEL", key(b"l", w)), ("RPUSH", key(b"l", w), value), ("MULTI",)]
    commands += [("SET", key(b"t1", w), value), ("HSET", key(b"t2", w), "f", value), ("ZADD", key(b"t3", w), value, "m"), ("EXEC",)]
    replies = [connection.call(*command) for command in commands]
    connection.close()
    return not any(isinstance(reply, Exception) for reply in replies)
