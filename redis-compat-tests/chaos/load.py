"""Clients that are many and write down what they asked and what they were answered, and the histories of keys that come of it.

Each request is sent once. What was refused is drawn anew: another value, so that one that was refused and is there all the same is seen.
"""
import random
import threading
import time
from collections import Counter, defaultdict

from chaos.linear import ACKNOWLEDGED, MODELS, REFUSED, UNKNOWN, Operation
from harness.routing import slot_of
from harness.wire import Closed, Connection

SLOTS = 16384
# Names of keys begin with their kind.
KINDS = tuple(MODELS)
KEYS_PER_KIND = 10
CLIENTS = 8
# A request was not executed; it may have been, or was read and has no answer.
NOT_EXECUTED = ("MOVED", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "unreached:")
IN_DOUBT = ("INDOUBT", "UNKEPT")
# How long clients wait for replies: some leave soon, some for longer than a node lets a request wait.
PATIENCE_SECONDS = (0.4, 0.8, 7)
MEMBERS = [b"m%d" % number for number in range(5)]
# (request, share) of each kind.
REQUESTS = {
    "register": (("SET", 5), ("GET", 5)),
    "counter": (("INCR", 5), ("GET", 5)),
    "set": (("SADD", 3), ("SREM", 3), ("SISMEMBER", 2), ("SMEMBERS", 2)),
    "list": (("RPUSH", 4), ("LRANGE", 6)),
}
WRITES = ("SET", "INCR", "SADD", "SREM", "RPUSH")
# Between requests of a client, on average: histories stay small, and the machine is not what is tested.
PAUSE_SECONDS = 0.006
# After a refusal or a close.
REFUSED_SECONDS = 0.02
ATTEMPTS = 5
JOIN_SECONDS = 30


def keys_over_all_slots(run):
    """Names that no run had before, by turns of each kind, whose slots lie in as many equal parts of all slots."""
    names, count = [], KEYS_PER_KIND * len(KINDS)
    for part in range(count):
        at = 0
        while slot_of("%s:%s:%d" % (KINDS[part % len(KINDS)], run, at)) * count // SLOTS != part:
            at += 1
        names.append("%s:%s:%d" % (KINDS[part % len(KINDS)], run, at))
    return names


def kind_of(key):
    return key.split(":", 1)[0]


def words(key, name, argument):
    """The request."""
    if name == "LRANGE":
        return name, key, "0", "-1"
    return (name, key) if argument is None else (name, key, argument)


class History:
    """By key, what was asked and answered."""

    def __init__(self):
        self.lock = threading.Lock()
        self.operations, self.errors = defaultdict(list), Counter()

    def record(self, key, name, argument, sent, reply, client, node):
        """A reply that has just come; errors are exceptions. Its outcome."""
        received, outcome = time.monotonic(), ACKNOWLEDGED
        if isinstance(reply, Exception):
            word = str(reply).split(" ", 1)[0]
            outcome = REFUSED if word in NOT_EXECUTED else UNKNOWN
        with self.lock:
            if outcome != ACKNOWLEDGED:
                self.errors[word] += 1
            self.operations[key].append(Operation(name, argument, sent, received, outcome, reply, client, node))
        return outcome

    def count(self, outcome=None):
        return sum(outcome in (None, one.outcome) for operations in self.operations.values() for one in operations)

    def strange(self):
        """Errors that nobody may get, a line each."""
        allowed = NOT_EXECUTED + IN_DOUBT + ("closed",)
        return ["%d replies are %s" % pair[::-1] for pair in sorted(self.errors.items()) if pair[0] not in allowed]

    def longest_silence(self, since, until):
        """The longest time without an acknowledged write, of any key, in seconds."""
        times = sorted(one.received for operations in self.operations.values() for one in operations
                       if one.outcome == ACKNOWLEDGED and one.name in WRITES and since < one.received < until)
        return max(after - before for before, after in zip([since] + times, times + [until]))


class Router:
    """Connections of one thread to the nodes, and who owned which slot last."""

    def __init__(self, addresses, patience):
        self.addresses, self.patience = list(addresses), patience
        self.connections, self.owners = {}, {}

    def once(self, key, request, at_random):
        """Sends a request to whoever is believed to own the key; (the address, the reply). A close is an exception of the same kind as errors."""
        slot = slot_of(key)
        address = self.owners.get(slot) or at_random.choice(self.addresses)
        try:
            if address not in self.connections:
                self.connections[address] = Connection(address[1], timeout=min(self.patience, 2), host=address[0])
                self.connections[address].socket.settimeout(self.patience)
        except OSError:
            self.owners.pop(slot, None)
            return address, RuntimeError("unreached: there is no connection")
        try:
            reply = self.connections[address].call(*request)
        except (Closed, OSError):
            self.forget(address)
            self.owners.pop(slot, None)
            return address, RuntimeError("closed or no reply in time")
        self.follow(slot, address, reply)
        return address, reply

    def follow(self, slot, address, reply):
        error = str(reply) if isinstance(reply, Exception) else ""
        if error.startswith("MOVED "):
            host, port = error.split()[2].rsplit(":", 1)
            self.owners[slot] = (host, int(port))
        elif error.startswith(NOT_EXECUTED + IN_DOUBT):
            self.owners.pop(slot, None)
        else:
            self.owners[slot] = address

    def forget(self, address):
        self.connections.pop(address).close()

    def close(self):
        for address in list(self.connections):
            self.forget(address)


class Client(threading.Thread):
    """Asks for something of some key again and again, until it is told to stop."""

    def __init__(self, number, addresses, keys, history, seed):
        super().__init__(daemon=True)
        self.number, self.keys, self.history = number, keys, history
        self.random, self.is_over, self.drawn, self.error = random.Random("%s/%d" % (seed, number)), threading.Event(), 0, None
        self.router = Router(addresses, PATIENCE_SECONDS[number % len(PATIENCE_SECONDS)])

    def run(self):
        try:
            while not self.is_over.is_set():
                self.one()
                self.is_over.wait(self.random.uniform(0, 2 * PAUSE_SECONDS))
        except Exception as error:  # whoever waits for it tells of it
            self.error = error
        finally:
            self.router.close()

    def one(self):
        """One request, drawn anew where it is refused."""
        key = self.random.choice(self.keys)
        names, shares = zip(*REQUESTS[kind_of(key)])
        name = self.random.choices(names, shares)[0]
        for _ in range(ATTEMPTS):
            if self.ask(key, name) != REFUSED or self.is_over.is_set():
                return

    def ask(self, key, name):
        argument = self.argument(name)
        request, sent = words(key, name, argument), time.monotonic()
        address, reply = self.router.once(key, request, self.random)
        outcome = self.history.record(key, name, argument, sent, reply, self.number, address[1])
        if outcome != ACKNOWLEDGED and not str(reply).startswith("MOVED"):
            self.is_over.wait(REFUSED_SECONDS)
        return outcome

    def argument(self, name):
        if name in ("SADD", "SREM", "SISMEMBER"):
            return self.random.choice(MEMBERS)
        if name in ("SET", "RPUSH"):
            self.drawn += 1
            return b"%d.%d" % (self.number, self.drawn)
        return None


class Load:
    """All clients."""

    def __init__(self, nodes, keys, history, seed):
        addresses = [(node.host, node.port) for node in nodes]
        self.clients = [Client(number, addresses, keys, history, seed) for number in range(1, CLIENTS + 1)]
        for client in self.clients:
            client.start()

    def stop(self):
        """What went wrong with them."""
        for client in self.clients:
            client.is_over.set()
        for client in self.clients:
            client.join(JOIN_SECONDS)
        return ["client %d: %s" % (client.number, client.error or "it has not ended")
                for client in self.clients if client.error or client.is_alive()]
