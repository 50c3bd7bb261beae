"""RESP2 and RESP3 over a raw socket: the smallest parser that can compare replies byte for byte.

`reply_end` finds where a reply ends without building anything, `parse` builds a `Reply` tree that keeps the type
byte of every node, and `Connection` sends pipelines and returns raw replies. Nothing here interprets a reply.
"""
import socket
from collections import namedtuple

# kind: the type byte as text. value: bytes, None, or a list of Reply (maps: keys and values alternate).
Reply = namedtuple("Reply", "kind value")

LINES = frozenset(b"+-:_#,(")
BULKS = frozenset(b"$=!")
LISTS = frozenset(b"*~>")


class Closed(Exception):
    """The server closed the connection; `received` is what it had sent of an unfinished reply."""

    def __init__(self, received=b""):
        super().__init__("connection closed after %r" % bytes(received[:200]))
        self.received = bytes(received)


class NotResp(Exception):
    """The server sent something that is not a reply."""


def reply_end(data, start=0):
    """Index just after the reply at `start`, or -1 when it is not complete yet."""
    missing, position, size = 1, start, len(data)
    while missing:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return -1
        kind = data[position]
        if kind in LINES:
            missing -= 1
            position = line_end + 2
            continue
        try:
            count = int(data[position + 1:line_end])
        except ValueError:
            raise NotResp("not a reply: %r" % bytes(data[position:position + 80])) from None
        position = line_end + 2
        if kind in BULKS:
            missing -= 1
            if count >= 0:
                position += count + 2
                if position > size:
                    return -1
        elif kind in LISTS:
            missing += max(count, 0) - 1
        elif kind == 0x25:  # a map
            missing += 2 * count - 1
        elif kind == 0x7C:  # attributes precede the reply they belong to
            missing += 2 * count
        else:
            raise NotResp("not a reply: %r" % bytes(data[position - 20:position + 60]))
    return position


def parse(data, start=0):
    """The reply at `start`, which must be complete, and the index after it."""
    line_end = data.index(b"\r\n", start)
    kind, line, position = chr(data[start]), bytes(data[start + 1:line_end]), line_end + 2
    if data[start] in LINES:
        return Reply(kind, line), position
    count = int(line)
    if count < 0:
        return Reply(kind, None), position
    if data[start] in BULKS:
        return Reply(kind, bytes(data[position:position + count])), position + count + 2
    items = []
    for _ in range(count * 2 if kind in "%|" else count):
        item, position = parse(data, position)
        items.append(item)
    return Reply(kind, items), position


def encode(arguments):
    """A request: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if not isinstance(argument, bytes):
            argument = str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


def plain(reply):
    """A reply as Python values; errors become exceptions that are returned, not raised."""
    kind, value = reply
    if value is None or kind == "_":
        return None
    if kind == "-":
        return RuntimeError(value.decode("utf-8", "replace"))
    if kind == ":":
        return int(value)
    if kind == ",":
        return float(value)
    if kind == "#":
        return value == b"t"
    if kind in "%|":
        return {plain(value[i]): plain(value[i + 1]) for i in range(0, len(value), 2)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


class Connection:
    """One blocking connection. `call` for single commands, `send` and `receive` for pipelines."""

    def __init__(self, port, timeout=30, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed(self.buffer) from None

    def receive(self, count):
        """The raw bytes of the next `count` replies."""
        replies, start = [], 0
        while len(replies) < count:
            end = reply_end(self.buffer, start)
            if end >= 0:
                replies.append(bytes(self.buffer[start:end]))
                start = end
                continue
            if start:
                del self.buffer[:start]
                start = 0
            try:
                chunk = self.socket.recv(1 << 18)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Closed(self.buffer)
            self.buffer += chunk
        del self.buffer[:start]
        return replies

    def call(self, *arguments):
        """One command; its reply as Python values (an error is returned as an exception)."""
        self.send(encode(arguments))
        return plain(parse(self.receive(1)[0])[0])

    def close(self):
        self.socket.close()
