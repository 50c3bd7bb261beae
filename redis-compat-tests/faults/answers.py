"""Answers that take more than one connection, or that speak of the server itself: messages in order, times, settings, clients."""
import os
import re
import threading
import time

from faults.places import eventually
from harness.process import free_port
from harness.wire import Closed, Connection, encode, parse, plain

ORDER_ROUNDS = int(os.environ.get("STARLING_ORDER_ROUNDS", "1000"))
# CONFIG SET of what has no effect, or cannot change any more, is refused, and the refusal names what it is about.
REFUSED = [("cluster-announce-ip", "10.0.0.1"), ("cluster-announce-port", "7000"), ("cluster-preferred-endpoint-type", "nonsense"),
           ("maxmemory-clients", "1gb"), ("databases", "4"), ("daemonize", "yes"),
           ("unixsocket", "/nowhere/socket"), ("cluster-enabled", "yes"), ("tls-port", "7001"), ("replicaof", "127.0.0.1 7000")]
BENCHMARK_GETS = 70_000


def order_behind_unsubscribe(place, key):
    """Two clients publish without a pause; behind the confirmation of UNSUBSCRIBE there must be no message."""
    over, threads = threading.Event(), []

    def publish(connection):
        while not over.is_set():
            connection.send(encode(("PUBLISH", "c", "m")) * 16)
            connection.receive(16)
        connection.close()

    connection = place.connect(key)
    try:
        for _ in range(2):
            threads.append(threading.Thread(target=publish, args=(place.connect(key),)))
            threads[-1].start()
        for number in range(ORDER_ROUNDS):
            connection.call("SUBSCRIBE", "c")
            connection.receive(1)
            connection.send(encode(("UNSUBSCRIBE", "c")) + encode(("GET", key)))
            while b"unsubscribe" not in (reply := connection.receive(1)[0]):
                if b"message" not in reply:
                    return "round %d: %r before the confirmation" % (number + 1, reply)
            if (reply := connection.receive(1)[0]) != b"$-1\r\n":
                return "round %d: %r behind the confirmation" % (number + 1, reply)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        connection.close()
    return None


def fast_commands_have_times(place, _key):
    connection, key = place.connect_here(), place.own_key()
    try:
        connection.call("CONFIG", "RESETSTAT")
        for _ in range(BENCHMARK_GETS // 1000):
            connection.send(encode(("GET", key)) * 1000)
            connection.receive(1000)
        line = re.search(rb"cmdstat_get:calls=(\d+),usec=(\d+)", connection.call("INFO", "commandstats"))
        good = line and int(line.group(1)) == BENCHMARK_GETS and int(line.group(2)) > 0
        return None if good else "INFO commandstats: %s" % (line and line.group(0))
    finally:
        connection.close()


def slow_log_has_fast_commands(place, _key):
    """Also where the GET stands in the same write as the CONFIG SET that asks for it."""
    connection, key = place.connect_here(), place.own_key()
    try:
        before = connection.call("CONFIG", "GET", "slowlog-log-slower-than")[1]
        connection.send(b"".join(map(encode, (("SLOWLOG", "RESET"), ("CONFIG", "SET", "slowlog-log-slower-than", "0"), ("GET", key)))))
        connection.receive(3)
        entries = connection.call("SLOWLOG", "GET", "-1")
        connection.call("CONFIG", "SET", "slowlog-log-slower-than", before)
        logged = any(entry[3] == [b"GET", key.encode()] for entry in entries)
        return None if logged else "the slow log: %.300r" % entries
    finally:
        connection.close()


def settings_act_or_are_refused(place, _key):
    connection = place.connect_here()
    try:
        wrong = []
        for name, value in REFUSED:
            before = connection.call("CONFIG", "GET", name)
            answer = connection.call("CONFIG", "SET", name, value)
            if not isinstance(answer, Exception) or len(str(answer)) < 30 or connection.call("CONFIG", "GET", name) != before:
                wrong.append("%s %s: %s" % (name, value, answer))
        return "; ".join(wrong) or None
    finally:
        connection.close()


def port_moves(place, _key):
    """Alone, a node takes another port; in a cluster, whose nodes know it by its port, it refuses in words."""
    connection, port = place.connect_here(), free_port()
    try:
        answer = connection.call("CONFIG", "SET", "port", port)
        if place.name != "one node":
            return None if isinstance(answer, Exception) and "other nodes of the cluster" in str(answer) else "CONFIG SET port: %r" % answer
        moved = Connection(port)
        answers = answer, moved.call("PING"), moved.call("CONFIG", "SET", "port", place.server.port)
        moved.close()
        Connection(place.server.port).close()
        return None if answers == (b"OK", b"PONG", b"OK") else "%r" % (answers,)
    finally:
        connection.close()


def strangers_are_not_counted(place, _key):
    """An HTTP request, and words that are no command, leave no trace in INFO commandstats."""
    for data in (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-One: 1\r\n\r\n", b"X-Two: 1\r\nnosuchcommand 1\r\n"):
        connection = place.connect_here()
        connection.send(data)
        try:
            connection.receive(2)
        except Closed:
            pass
        connection.close()
    connection = place.connect_here()
    stats = connection.call("INFO", "commandstats").lower()
    connection.close()
    found = [name for name in (b"host:", b"post", b"x-one", b"x-two", b"nosuchcommand") if b"cmdstat_" + name in stats]
    return "counted: %s" % found if found else None


def idle_time_is_never_negative(place, key):
    """Written over one connection, asked for over others, which other workers serve."""
    writer, readers = place.connect(key), [place.connect(key) for _ in range(8)]
    try:
        for _ in range(500):
            writer.call("SET", key, "v")
            for reader in readers:
                reader.send(encode(("OBJECT", "IDLETIME", key)))
            for reader in readers:
                idle = plain(parse(reader.receive(1)[0])[0])
                if not isinstance(idle, int) or not 0 <= idle <= 5:
                    return "idle for %s s" % idle
        writer.call("DEL", key)
    finally:
        for connection in [writer] + readers:
            connection.close()
    return None


def leaving_is_noticed(place, _key):
    """A client whose writes wait for the end of a pause has sent 128 KB of them, and goes away."""
    observer, leaver, key = place.connect_here(), place.connect_here(), place.own_key()
    try:
        leaver.call("CLIENT", "SETNAME", "leaver")
        observer.call("CLIENT", "PAUSE", "100000000", "WRITE")
        leaver.send(encode(("SET", key, "v" * 100)) * 1000)
        problem = eventually(lambda: b"blocked_clients:1\r" in observer.call("INFO", "clients"), "the client waits")
        leaver.close()
        return problem or eventually(lambda: b" name=leaver " not in observer.call("CLIENT", "LIST"), "the client is struck out")
    finally:
        observer.call("CLIENT", "UNPAUSE")
        observer.close()


CASES = [
    ("no message behind UNSUBSCRIBE", order_behind_unsubscribe),
    ("70,000 GETs take time", fast_commands_have_times),
    ("the slow log has GET", slow_log_has_fast_commands),
    ("CONFIG SET acts or is refused in words", settings_act_or_are_refused),
    ("CONFIG SET port moves the listener, or is refused", port_moves),
    ("what is no command is not counted by name", strangers_are_not_counted),
    ("OBJECT IDLETIME is never below 0", idle_time_is_never_negative),
    ("a client that leaves while it waits is noticed", leaving_is_noticed),
]


def run(places, check):
    for name, case in CASES:
        for place in places.tested:
            check(place.name, name, lambda: case(place, places.a))
