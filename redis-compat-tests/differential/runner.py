"""Sends units to both servers and compares what comes back; shrinks a failing sequence to few units.

Commands of one connection travel in pipelines; the other connection is used only after all replies have arrived,
so that the order of execution is the same on both servers.
"""
import time
from collections import namedtuple

from compare import Session
from harness.wire import Closed, Connection, NotResp, encode, parse
from units import PAUSE, PAUSE_SECONDS, audit_commands

Failure = namedtuple("Failure", "index arguments reference target problem")
PIPELINE_COMMANDS = 300
PIPELINE_BYTES = 48 * 1024
SCAN_CALLS_MAX = 100_000


class Runner:
    """A pair of servers, given by port, and the commands they share."""

    def __init__(self, reference_port, target_port, commands, timeout=30):
        self.ports = (reference_port, target_port)
        self.commands = commands
        self.containers = {name for name, entry in commands.items() if entry["container"]}
        self.timeout = timeout
        self.sent = 0

    def run(self, units):
        """The first Failure, or None. Starts from empty databases and fresh connections."""
        pairs = [[Connection(port, self.timeout) for port in self.ports] for _ in range(2)]
        sessions = [Session(self.containers) for _ in range(2)]
        try:
            for connection in pairs[0]:
                connection.call("FLUSHALL")
            return self.replay(units, pairs, sessions) or self.audit(pairs[0], sessions[0], len(units))
        finally:
            for pair in pairs:
                for connection in pair:
                    connection.close()

    def replay(self, units, pairs, sessions):
        pending, size, at = [], 0, 0
        for index, unit in enumerate(units):
            if pending and (unit.connection != at or unit.kind != "plain" or len(pending) > PIPELINE_COMMANDS or size > PIPELINE_BYTES):
                failure = self.exchange(pairs[at], sessions[at], pending)
                if failure:
                    return failure
                pending, size = [], 0
            at = unit.connection
            if unit.kind == "scan":
                failure = self.scan(pairs[at], sessions[at], index, unit.commands[0])
                if failure:
                    return failure
                continue
            for words in unit.commands:
                if words is PAUSE:
                    failure = self.exchange(pairs[at], sessions[at], pending)
                    if failure:
                        return failure
                    pending, size = [], 0
                    time.sleep(PAUSE_SECONDS)
                else:
                    request = encode(words)
                    pending.append((index, words, request))
                    size += len(request)
        return self.exchange(pairs[at], sessions[at], pending) if pending else None

    def exchange(self, pair, session, pending):
        """Send a pipeline to both, read all replies, compare them one by one."""
        data = b"".join(request for _index, _words, request in pending)
        self.sent += len(pending)
        replies = []
        for connection in pair:
            connection.send(data)
        for connection in pair:
            received = []
            try:
                while len(received) < len(pending):
                    received += connection.receive(1)
            except (Closed, NotResp, OSError) as error:
                received.append(error)
            replies.append(received)
        for i, (index, words, _request) in enumerate(pending):
            reference, target = replies[0][i], replies[1][i]
            if isinstance(reference, Exception) or isinstance(target, Exception):
                return Failure(index, words, reference, target, "no reply")
            problem = session.check(words, reference, target)
            if problem:
                return Failure(index, words, reference, target, problem)
        return None

    def scan(self, pair, session, index, words):
        """Follow a cursor to its end on both and compare the sets of elements; errors are compared as they are."""
        collected = []
        for connection in pair:
            collected.append(self.collect(connection, list(words)))
        reference, target = collected
        if isinstance(reference, set) and reference == target:
            return None
        if isinstance(reference, bytes) and isinstance(target, bytes):
            problem = session.check(words, reference, target)
        else:
            problem = "elements differ"
        return Failure(index, words, reference, target, problem) if problem else None

    def collect(self, connection, words):
        """The set of elements (pairs, for hashes and sorted sets) of a whole iteration, or a raw error reply."""
        place = 1 if words[0].lower() == b"scan" else 2
        step = 2 if words[0].lower() in (b"hscan", b"zscan") else 1
        found, begins = set(), words[place:place + 1] == [b"0"]
        for _ in range(SCAN_CALLS_MAX):
            connection.send(encode(words))
            self.sent += 1
            raw = connection.receive(1)[0]
            reply = parse(raw)[0]
            if reply.kind != "*" or not reply.value or len(reply.value) != 2 or len(words) <= place:
                return raw
            if not begins:
                return found  # a cursor that no server handed out: only errors are comparable
            items = [item.value for item in reply.value[1].value]
            if words[0].lower() == b"zscan":
                # Scores by value: rule "doubles".
                items[1::2] = [float(score) for score in items[1::2]]
            found.update(tuple(items[i:i + step]) for i in range(0, len(items), step))
            words[place] = reply.value[0].value
            if words[place] == b"0":
                return found
        return b"-the iteration does not end\r\n"

    def audit(self, pair, session, index):
        """Compare everything that the databases hold at the end."""
        for words in ([b"DISCARD"], [b"HELLO", b"2"]):
            failure = self.exchange(pair, session, [(index, words, encode(words))])
            if failure:
                return failure
        for database in (b"0", b"1", b"2", b"3"):
            pending = [(index, words, encode(words)) for words in ([b"SELECT", database], [b"KEYS", b"*"])
                       if words[0].decode().lower() in self.commands]
            failure = self.exchange(pair, session, pending)
            if failure:
                return failure
            keys = pair[0].call("KEYS", "*")
            for key in sorted(keys):
                kind = pair[0].call("TYPE", key)
                pending = [(index, words, encode(words)) for words in [[b"TYPE", key]] + audit_commands(kind, key)
                           if words[0].decode().lower() in self.commands]
                failure = self.exchange(pair, session, pending)
                if failure:
                    return failure
        return None

    def shrink(self, units, failure, seconds=20):
        """The fewest units, found by removing ever smaller pieces, that still fail at the same command."""
        deadline = time.monotonic() + seconds
        units = list(units[:failure.index + 1])
        size = max(1, len(units) // 2)
        while time.monotonic() < deadline:
            place = 0
            while place < len(units) and time.monotonic() < deadline:
                candidate = units[:place] + units[place + size:]
                found = self.attempt(candidate)
                if found and found.arguments[0].lower() == failure.arguments[0].lower() and found.problem == failure.problem:
                    units, failure = candidate[:found.index + 1], found
                else:
                    place += size
            if size == 1:
                break
            size = max(1, size // 2)
        return units, failure

    def attempt(self, units):
        try:
            return self.run(units)
        except (Closed, NotResp, OSError):
            return None


def describe(unit):
    """A unit as lines that can be pasted into redis-cli."""
    lines = []
    for words in unit.commands:
        lines.append("(pause)" if words is PAUSE else " ".join(quote(word) for word in words))
    return ["%d> %s" % (unit.connection, line) for line in lines]


def quote(word):
    text = repr(word)[2:-1]
    return text if text and all(c.isalnum() or c in "-_+*.:{}" for c in text) else '"%s"' % text.replace('"', '\\"')


