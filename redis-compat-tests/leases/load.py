"""Those who ask: one thread for each node that sends to that node only, and requests that wait for a node that stands still."""
import binascii
import itertools
import random
import threading
import time
from collections import Counter

from harness.wire import Closed, encode, parse, plain

SLOTS = 16384
BATCH = 20
# Between batches, so that those who answer have time too.
PAUSE_SECONDS = 0.003
# How long a request may wait: longer than a node lets it, and than one stands still.
REPLY_SECONDS = 30
JOIN_SECONDS = 40
CLOSED = RuntimeError("closed by the server")


def slot_of(key):
    return binascii.crc_hqx(key.encode(), 0) & (SLOTS - 1)


def keys_over_all_slots(count):
    """Names whose slots lie in as many equal parts of all slots."""
    found = {}
    for number in itertools.count():
        found.setdefault(slot_of("key:%d" % number) * count // SLOTS, "key:%d" % number)
        if len(found) == count:
            return [found[part] for part in sorted(found)]


class Numbers:
    """Values: each is drawn once, when it is sent."""

    def __init__(self):
        self.count = itertools.count(1)

    def draw(self):
        return b"%d" % next(self.count)


class Sent:
    """A batch that is on its way to a node: (key, value or None for GET, when)."""

    def __init__(self, connection, node, requests):
        self.connection, self.node = connection, node
        self.waiting = [(key, value, time.monotonic()) for key, value in requests]
        try:
            connection.send(b"".join(
                encode(("GET", key) if value is None else ("SET", key, value)) for key, value, _ in self.waiting))
        except (Closed, OSError):
            pass  # reading finds it too

    def receive(self, history):
        """Reads all replies; (how many of which kind, whether the connection is still good)."""
        kinds = Counter()
        for at, (key, value, sent) in enumerate(self.waiting):
            try:
                raw = self.connection.receive(1)[0]
            except (Closed, OSError):
                for key, value, sent in self.waiting[at:]:
                    kinds[history.record(key, value, sent, time.monotonic(), self.node.number, CLOSED)] += 1
                return kinds, False
            received = time.monotonic()
            kinds[history.record(key, value, sent, received, self.node.number, plain(parse(raw)[0]))] += 1
        return kinds, True


class Sender(threading.Thread):
    """Sends to one node until it is told to stop."""

    def __init__(self, node, keys, numbers, history, seed):
        super().__init__(daemon=True)
        self.node, self.keys, self.numbers, self.history = node, keys, numbers, history
        self.random, self.is_stopped = random.Random(seed), threading.Event()
        self.connection = node.connect()
        self.connection.socket.settimeout(REPLY_SECONDS)

    def run(self):
        while not self.is_stopped.is_set():
            requests = [(self.random.choice(self.keys), self.numbers.draw() if self.random.random() < 0.5 else None)
                        for _ in range(BATCH)]
            _kinds, is_good = Sent(self.connection, self.node, requests).receive(self.history)
            if not is_good:
                self.connect_again()
            self.is_stopped.wait(self.random.uniform(0, 2 * PAUSE_SECONDS))

    def connect_again(self):
        self.connection.close()
        while not self.is_stopped.wait(PAUSE_SECONDS):
            try:
                self.connection = self.node.connect()
                self.connection.socket.settimeout(REPLY_SECONDS)
                return
            except OSError:
                continue


class Load:
    """A thread for each node."""

    def __init__(self, nodes, keys, numbers, history, seed):
        self.senders = [Sender(node, keys, numbers, history, "%s/%d" % (seed, node.number)) for node in nodes]
        for sender in self.senders:
            sender.start()

    def stop(self):
        for sender in self.senders:
            sender.is_stopped.set()
        for sender in self.senders:
            sender.join(JOIN_SECONDS)
            if sender.is_alive():
                raise RuntimeError("node %d has not answered for %d s" % (sender.node.number, JOIN_SECONDS))
            sender.connection.close()
