"""Whether one server could have answered what many were asked about one key: linearizability of some kinds of values.

The history of a key is walked through in the order in which requests were sent and replies came. What is carried along are all
*configurations* that explain it so far: a value, which requests under way have taken effect by then, and which of unknown outcome
have. At each reply its request must have taken effect: every order of those under way is tried that ends with it (Wing and Gong,
Testing and Verifying Concurrent Objects, 1993; just in time and with what was seen remembered: Lowe, Testing for Linearizability, 2017).
Where nothing is left, no order explains that reply.

A request of unknown outcome may take effect at any moment after it was sent, or never; one that was refused never did. Three
things keep the work small, and change no verdict:

  reads      one that fits the value takes effect at once: later it could not fit better
  doubles    requests of unknown outcome that do the same stand for each other; the one that was sent first goes first
  values     a SET of unknown outcome takes effect just before a read of its value, or might as well never
  spending   of two configurations that differ only in what of unknown outcome was used, the one that used less can do all the other can

Times are seconds of `time.monotonic`, each from before something was sent to after its reply was read.
"""
from collections import namedtuple

ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
GOOD, WRONG, UNDECIDED = "good", "WRONG", "UNDECIDED"
# Configurations that are looked at for one key: some seconds of work.
STEPS_MAX = 200_000

# name: "SET". argument: bytes or None. reply: as Python values; of a refusal or an unknown outcome what was said.
Operation = namedtuple("Operation", "name argument sent received outcome reply client node")
# operation: at which it was decided, or None.
Verdict = namedtuple("Verdict", "kind operation steps")


class Register:
    """SET of values that are all different, and GET."""

    READS, EMPTY = ("GET",), None

    @staticmethod
    def apply(value, operation):
        """(the value after it, its reply)."""
        return (value, value) if operation.name == "GET" else (operation.argument, b"OK")


class Counter:
    """INCR and GET."""

    READS, EMPTY = ("GET",), 0

    @staticmethod
    def apply(value, operation):
        if operation.name == "GET":
            return value, (b"%d" % value if value else None)
        return value + 1, value + 1


class Members:
    """SADD and SREM of one member, SISMEMBER and SMEMBERS."""

    READS, EMPTY = ("SISMEMBER", "SMEMBERS"), frozenset()

    @staticmethod
    def apply(value, operation):
        name, member = operation.name, operation.argument
        if name == "SMEMBERS":
            return value, value
        if name == "SISMEMBER":
            return value, int(member in value)
        after = value | {member} if name == "SADD" else value - {member}
        return after, int(after != value)


class Appended:
    """RPUSH of elements that are all different, and LRANGE of everything."""

    READS, EMPTY = ("LRANGE",), ()

    @staticmethod
    def apply(value, operation):
        if operation.name == "LRANGE":
            return value, value
        return value + (operation.argument,), len(value) + 1


MODELS = {"register": Register, "counter": Counter, "set": Members, "list": Appended}


def told(operation):
    """The reply in the form in which models give it: of a set without an order, of a list unchangeable."""
    if operation.name == "SMEMBERS":
        return frozenset(operation.reply)
    return tuple(operation.reply) if operation.name == "LRANGE" else operation.reply


class OutOfSteps(Exception):
    """More would have to be looked at than is allowed."""


class Key:
    """The check of one key's history."""

    def __init__(self, model, operations, steps_max):
        self.model, self.steps, self.steps_max = model, 0, steps_max
        self.operations = [operation for operation in operations if self.counts(operation)]
        self.replies = [told(operation) if operation.outcome == ACKNOWLEDGED else None for operation in self.operations]
        # Of the last read of a list: whatever the list was before is a beginning of it.
        self.whole = self.last_list() if model is Appended else None
        # (what is done, its argument): the numbers of those of unknown outcome, by the time at which they were sent.
        self.doubles = {}
        # What is under way and will be answered; and how many of each of the doubles have been sent.
        self.open, self.sent = [], {}

    def counts(self, operation):
        """Nothing follows from what was refused, nor from a read without an answer."""
        if operation.outcome == REFUSED:
            return False
        return operation.outcome == ACKNOWLEDGED or operation.name not in self.model.READS

    def last_list(self):
        """What a read gave that was sent after all else was over; None: there is none."""
        reads = [at for at, one in enumerate(self.operations) if one.name == "LRANGE"]
        if not reads:
            return None
        last = max(reads, key=lambda at: self.operations[at].sent)
        over = max((one.received for at, one in enumerate(self.operations) if at != last and one.outcome == ACKNOWLEDGED), default=0)
        return self.replies[last] if over < self.operations[last].sent else None

    def verdict(self):
        """Walks through all that was sent and received."""
        events = []
        for at, operation in enumerate(self.operations):
            events.append((operation.sent, 0, at))
            if operation.outcome == ACKNOWLEDGED:
                events.append((operation.received, 1, at))
        # A configuration: (value, what of the open ones has taken effect), and the ways in which doubles were used.
        configurations = {(self.model.EMPTY, frozenset()): [()]}
        for _time, is_reply, at in sorted(events):
            if not is_reply:
                self.send(at)
                continue
            try:
                configurations = self.answer(at, configurations)
            except OutOfSteps:
                return Verdict(UNDECIDED, self.operations[at], self.steps)
            if not configurations:
                return Verdict(WRONG, self.operations[at], self.steps)
        return Verdict(GOOD, None, self.steps)

    def send(self, at):
        operation = self.operations[at]
        if operation.outcome == ACKNOWLEDGED:
            self.open.append(at)
            return
        same = operation.name, operation.argument
        # It can never have been there before the last read, and behind that nobody looks.
        if self.whole is None or operation.argument in self.whole:
            self.doubles.setdefault(same, at)
            self.sent[same] = self.sent.get(same, 0) + 1

    def answer(self, answered, configurations):
        """The configurations after a reply: those in which its request has taken effect."""
        found, seen = {}, {}
        stack = [(value, done, used) for (value, done), ways in configurations.items() for used in ways]
        while stack:
            value, done, used = stack.pop()
            done = self.read(value, done)
            if not add(seen, (value, done), used):
                continue
            self.steps += 1
            if self.steps > self.steps_max:
                raise OutOfSteps
            if answered in done:
                add(found, (value, done - {answered}), used)
                continue
            stack.extend(self.successors(value, done, used))
        self.open.remove(answered)
        return found

    def read(self, value, done):
        """What has taken effect when every open read that fits the value does so now."""
        fitting = [at for at in self.open if at not in done and self.operations[at].name in self.model.READS
                   and self.model.apply(value, self.operations[at])[1] == self.replies[at]]
        return done.union(fitting) if fitting else done

    def successors(self, value, done, used):
        """Where one more write can lead."""
        for at in self.open:
            operation = self.operations[at]
            if at in done or operation.name in self.model.READS:
                continue
            after, reply = self.model.apply(value, operation)
            if reply == self.replies[at] and self.can_be(after):
                yield after, done | {at}, used
        spent = dict(used)
        wanted = {self.replies[at] for at in self.open if at not in done}
        for same, count in self.sent.items():
            if spent.get(same, 0) == count or self.model is Register and same[1] not in wanted:
                continue
            after, _reply = self.model.apply(value, self.operations[self.doubles[same]])
            if after != value and self.can_be(after):
                yield after, done, tuple(sorted({**spent, same: spent.get(same, 0) + 1}.items()))

    def can_be(self, value):
        return self.whole is None or value == self.whole[:len(value)]


def add(configurations, state, used):
    """Adds a way to use doubles unless one is known that uses no more of any. Whether it was added."""
    ways = configurations.setdefault(state, [])
    if any(uses_no_more(way, used) for way in ways):
        return False
    ways[:] = [way for way in ways if not uses_no_more(used, way)] + [used]
    return True


def uses_no_more(one, other):
    limits = dict(other)
    return all(count <= limits.get(same, 0) for same, count in one)


def check(kind, operations, steps_max=STEPS_MAX):
    """The verdict on all operations of one key, which began with nothing. `kind`: one of MODELS."""
    return Key(MODELS[kind], operations, steps_max).verdict()
