"""A cluster client on raw sockets that hides nothing: it follows redirects as a stock client does, and counts them.

Every error that has to do with where a key lives is counted by its first word in `seen` (MOVED, ASK, TRYAGAIN,
CLUSTERDOWN), as are connections that a server closed or refused (`closed PORT`, `refused PORT`). A request is sent again only after an answer that
says that it was not executed, or after a close, where the caller's own oracle must notice a double execution.
One thread uses one client.
"""
import binascii
import time
from collections import Counter

from harness.wire import Closed, Connection, encode, parse, plain

SLOTS = 16384
# Stock clients follow 5 (redis-benchmark) to 16 redirects of one request; more than the least is an error of the server.
REDIRECTS_MAX = 5
REQUEST_SECONDS = 10
# What a request is paused for before it is sent again, where the answer names no other node.
PAUSE_SECONDS = 0.005
# Stands where a reply has not come.
MISSING = object()


class GaveUp(Exception):
    """A request that no node executed in time."""


def slot_of(key):
    """The slot of a key: CRC16 (XMODEM) of the part in the first non-empty braces, or of all of it."""
    if isinstance(key, str):
        key = key.encode()
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1:end]
    return binascii.crc_hqx(key, 0) & (SLOTS - 1)


def redirect(error):
    """(kind, port or None) of an error about where a key lives, or None of any other reply."""
    if not isinstance(error, RuntimeError):
        return None
    kind, _, rest = str(error).partition(" ")
    if kind in ("MOVED", "ASK"):
        return kind, int(rest.rsplit(":", 1)[1])
    return (kind, None) if kind in ("TRYAGAIN", "CLUSTERDOWN") else None


class Routed:
    """A client of the cluster whose nodes listen at `ports` on loopback."""

    def __init__(self, ports, seen=None):
        self.seeds = list(ports)
        self.seen = Counter() if seen is None else seen
        self.connections = {}
        self.owners = [None] * SLOTS
        self.hops = 0
        self.refresh()

    def refresh(self):
        """Read the slot table anew, from any node that answers."""
        known = [port for port in dict.fromkeys(self.owners) if port] + self.seeds
        for port in known:
            try:
                table = self.connection(port).call("CLUSTER", "SLOTS")
            except (OSError, Closed):
                self.forget(port)
                continue
            if isinstance(table, Exception):
                continue
            for first, last, node, *_copies in table:
                self.owners[first:last + 1] = [node[1]] * (last - first + 1)
            return
        raise GaveUp("no node of %s answers" % known)

    def connection(self, port):
        if port not in self.connections:
            self.connections[port] = Connection(port)
        return self.connections[port]

    def forget(self, port):
        connection = self.connections.pop(port, None)
        if connection:
            connection.close()

    def owner(self, slot):
        if self.owners[slot] is None:
            self.refresh()
        return self.owners[slot] or self.seeds[0]

    def call(self, *arguments, key=None):
        """One command, routed by `key` (its first argument by default); errors are returned as exceptions."""
        request = encode(arguments)
        return self.route(key or arguments[1], lambda connection: self.once(connection, request))

    @staticmethod
    def once(connection, request):
        connection.send(request)
        return plain(parse(connection.receive(1)[0])[0])

    def route(self, key, attempt):
        """Run `attempt(connection)` at the owner of the key until its result is no redirect, and return the result."""
        slot, asking, hops, deadline = slot_of(key), None, 0, time.monotonic() + REQUEST_SECONDS
        while time.monotonic() < deadline:
            port = asking or self.owner(slot)
            try:
                connection = self.connection(port)
                if asking:
                    connection.call("ASKING")
                result = attempt(connection)
            except (OSError, Closed) as error:
                self.lost(port, error)
                asking = None
                continue
            where = redirect(result)
            if where is None:
                self.hops = max(self.hops, hops)
                return result
            self.seen[where[0]] += 1
            asking = self.follow(slot, where)
            hops += where[1] is not None
            if hops == REDIRECTS_MAX + 1:
                self.seen["redirect loops"] += 1
            if where[1] is None or hops > REDIRECTS_MAX:
                time.sleep(PAUSE_SECONDS)
        raise GaveUp("%s: nobody executed a request in %d s" % (key, REQUEST_SECONDS))

    def follow(self, slot, where):
        """Note where a redirect points; the port to ask when it was ASK."""
        kind, port = where
        if kind == "MOVED":
            self.owners[slot] = port
        return port if kind == "ASK" else None

    def lost(self, port, error):
        """A node closed the connection, or takes none any more."""
        self.seen["%s %d" % ("refused" if isinstance(error, ConnectionRefusedError) else "closed", port)] += 1
        self.forget(port)
        time.sleep(PAUSE_SECONDS)
        self.owners = [None if owner == port else owner for owner in self.owners]
        self.refresh()

    def pipeline(self, commands):
        """Many commands at once, each routed by its first argument and with a key of its own; replies in order.

        What is redirected is sent again by itself.
        """
        replies, groups = [MISSING] * len(commands), {}
        for index, command in enumerate(commands):
            groups.setdefault(self.owner(slot_of(command[1])), []).append(index)
        again = []
        for port, indices in groups.items():
            try:
                connection = self.connection(port)
                connection.send(b"".join(encode(commands[index]) for index in indices))
                for index in indices:
                    replies[index] = plain(parse(connection.receive(1)[0])[0])
            except (OSError, Closed) as error:
                self.lost(port, error)
                again += [index for index in indices if replies[index] is MISSING]
                indices = [index for index in indices if replies[index] is not MISSING]
            for index in indices:
                where = redirect(replies[index])
                if where:
                    self.seen[where[0]] += 1
                    self.follow(slot_of(commands[index][1]), where)
                    again.append(index)
        for index in again:
            replies[index] = self.call(*commands[index])
        return replies

    def transaction(self, key, commands, stepwise=False):
        """MULTI, the commands, EXEC at the owner of `key`: the list of replies, None after a broken WATCH, or an error.

        Stepwise it waits for each reply, so that a slot may leave between MULTI and EXEC.
        """
        words = [("MULTI",), *commands, ("EXEC",)]

        def attempt(connection):
            if stepwise:
                replies = [connection.call(*command) for command in words]
            else:
                connection.send(b"".join(encode(command) for command in words))
                replies = [plain(parse(raw)[0]) for raw in connection.receive(len(words))]
            return next((reply for reply in replies[:-1] if isinstance(reply, Exception)), replies[-1])

        return self.route(key, attempt)

    def close(self):
        for port in list(self.connections):
            self.forget(port)
