"""Decides whether two replies to the same command count as equal.

Each function here takes (arguments, reference, target, previous) with parsed replies, where `previous` is the
target's reply to the command before, and returns None or a sentence that says what differs. Which function serves
which command is said in rules.py only.
"""
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness.wire import parse  # noqa: E402
import rules  # noqa: E402

NEAR_SECONDS = 3


def command_name(arguments, containers):
    """The name as COMMAND LIST writes it: "get", "object|encoding"."""
    name = arguments[0].decode("latin-1").lower()
    if name in containers and len(arguments) > 1:
        return name + "|" + arguments[1].decode("latin-1").lower()
    return name


def as_integer(reply):
    try:
        return int(reply.value)
    except (TypeError, ValueError):
        return None


def as_double(reply):
    try:
        return float(reply.value)
    except (TypeError, ValueError):
        return None


def freeze(reply):
    """A hashable form of a reply."""
    if isinstance(reply.value, list):
        return reply.kind, tuple(freeze(item) for item in reply.value)
    return reply.kind, reply.value


def leaves(reply):
    """All values inside a reply, nested lists flattened."""
    if not isinstance(reply.value, list):
        return [reply.value]
    return [leaf for item in reply.value for leaf in leaves(item)]


def exact(_arguments, reference, target, _previous):
    return None if reference == target else "replies differ"


def same_shape(reference, target):
    """None when both are lists of one kind and length."""
    if reference.kind != target.kind:
        return "types differ"
    if not isinstance(reference.value, list) or not isinstance(target.value, list):
        return "replies differ"
    if len(reference.value) != len(target.value):
        return "lengths differ: %d and %d" % (len(reference.value), len(target.value))
    return None


def unordered(_arguments, reference, target, _previous):
    problem = same_shape(reference, target)
    if problem is None and sorted(map(repr, reference.value)) != sorted(map(repr, target.value)):
        problem = "elements differ"
    return problem


def unordered_pairs(_arguments, reference, target, _previous):
    problem = same_shape(reference, target)
    if problem is None:
        pairs = [sorted(repr(reply.value[i:i + 2]) for i in range(0, len(reply.value), 2)) for reply in (reference, target)]
        if pairs[0] != pairs[1]:
            problem = "pairs differ"
    return problem


def members_of_previous(_arguments, reference, target, previous):
    if reference.kind != target.kind or (reference.value is None) != (target.value is None):
        return "types differ"
    if reference.kind == "-":
        return "errors differ"
    if isinstance(reference.value, list) and len(reference.value) != len(target.value):
        return "lengths differ: %d and %d" % (len(reference.value), len(target.value))
    strangers = [leaf for leaf in leaves(target) if leaf is not None and leaf not in leaves(previous)]
    return "%r is not an element" % strangers[0] if strangers else None


def near(reference, target, tolerance):
    a, b = as_integer(reference), as_integer(target)
    if reference.kind != target.kind or a is None or b is None:
        return "replies differ"
    if min(a, b) < 0 or abs(a - b) > tolerance:
        return "more than %d apart" % tolerance
    return None


def near_seconds(_arguments, reference, target, _previous):
    return near(reference, target, NEAR_SECONDS)


def near_milliseconds(_arguments, reference, target, _previous):
    return near(reference, target, NEAR_SECONDS * 1000)


def near_time(_arguments, reference, target, _previous):
    return same_shape(reference, target) or near(reference.value[0], target.value[0], NEAR_SECONDS)


def near_stream_id(arguments, reference, target, _previous):
    if b"*" not in arguments or reference.kind != "$" or target.kind != "$":
        return "replies differ"
    parts = [reply.value.split(b"-") for reply in (reference, target)]
    if any(len(part) != 2 or not part[0].isdigit() or not part[1].isdigit() for part in parts):
        return "not an id"
    return None if abs(int(parts[0][0]) - int(parts[1][0])) <= NEAR_SECONDS * 1000 else "ids too far apart"


# Fields of XINFO whose values are times, or figures of the implementation, or not in Redis 7.0.
XINFO_TIMES = {b"idle", b"inactive", b"seen-time", b"active-time", b"radix-tree-keys", b"radix-tree-nodes"}


def without_times(reply):
    """A reply of XINFO as a list of plain values, without what XINFO_TIMES names."""
    if not isinstance(reply.value, list):
        # Entries that are pending have the Unix time of their delivery, in milliseconds.
        is_time = reply.kind == ":" and (as_integer(reply) or 0) > 10 ** 12
        return reply.kind, "a time" if is_time else reply.value
    kept, skipping = [], False
    for item in reply.value:
        if skipping:
            skipping = False
        elif item.value in XINFO_TIMES if isinstance(item.value, bytes) else False:
            skipping = True
        else:
            kept.append(without_times(item))
    return kept


def stream_info(_arguments, reference, target, _previous):
    return None if without_times(reference) == without_times(target) else "replies differ beside their times"


def pending(_arguments, reference, target, _previous):
    """Equal but for the idle times of XPENDING's long form: id, consumer, idle time, deliveries."""
    problem = same_shape(reference, target)
    for a, b in zip(reference.value, target.value) if problem is None else ():
        if a == b:
            continue
        inner = same_shape(a, b)
        if inner or len(a.value) != 4 or near(a.value[2], b.value[2], NEAR_SECONDS * 1000):
            return inner or "entries differ"
        if [a.value[i] for i in (0, 1, 3)] != [b.value[i] for i in (0, 1, 3)]:
            return "entries differ"
    return problem


def doubles(_arguments, reference, target, _previous):
    """Equal, except that numbers may be written differently."""
    if isinstance(reference.value, list):
        problem = same_shape(reference, target)
        for a, b in zip(reference.value, target.value) if problem is None else ():
            problem = problem or doubles(None, a, b, None)
        return problem
    if reference == target:
        return None
    a, b = as_double(reference), as_double(target)
    if a is not None and math.isinf(a) and target.kind == "-":
        return None
    if reference.kind == target.kind and reference.kind in "$," and a is not None and a == b:
        return None
    return "replies differ"


def float_sum(_arguments, reference, target, _previous):
    a, b = as_double(reference), as_double(target)
    if a is not None and math.isinf(a) and target.kind == "-":
        return None
    if reference.kind != "$" or target.kind != "$" or a is None or b is None:
        return "replies differ"
    return None if math.isclose(a, b, rel_tol=1e-15) else "sums differ"


def encoding(_arguments, reference, target, _previous):
    others = (b"quicklist", b"hashtable", b"listpackex")
    if (reference.kind, target.kind, target.value) == ("$", "$", b"listpack") and reference.value in others:
        return None
    return "encodings differ"


def same_kind(_arguments, reference, target, _previous):
    return None if (reference.kind, target.kind) == (":", ":") else "types differ"


def hello(_arguments, reference, target, _previous):
    problem = same_shape(reference, target)
    for i in range(0, len(reference.value), 2) if problem is None else ():
        name = reference.value[i].value
        if name != target.value[i].value:
            return "field %r and %r" % (name, target.value[i].value)
        if name not in (b"server", b"version", b"id", b"modules") and reference.value[i + 1] != target.value[i + 1]:
            return "field %r differs" % name
    return problem


def sorted_by_nothing(arguments, reference, target, previous):
    if reference.kind == "-" and b"can't be converted into double" in reference.value and target.kind == "*":
        return None
    words = [word.upper() for word in arguments]
    has_zero = reference.kind == "*" and any(b"\0" in (item.value or b"") for item in reference.value)
    if b"BY" not in words and not (b"ALPHA" in words and has_zero):
        return exact(arguments, reference, target, previous)
    if b"LIMIT" in words and reference.kind == target.kind == "*" and len(reference.value) == len(target.value):
        return None
    return unordered(arguments, reference, target, previous)


def compare(name, arguments, reference, target, previous):
    """None, or what differs between two parsed replies to the command `name`."""
    if reference == target:
        return None
    if reference.kind == "-" and target.kind == "-":
        for left, right, _reason in rules.ERROR_TEXTS:
            if left.match(reference.value) and right.match(target.value):
                return None
        return "error texts differ"
    rule = rules.rule_for(name)
    return globals()[rule.how if rule else "exact"](arguments, reference, target, previous)


class Session:
    """Compares the replies of one connection in order, and knows what EXEC's reply answers."""

    def __init__(self, containers):
        self.containers = containers
        self.queue = []
        self.previous = None

    def check(self, arguments, reference, target):
        """None, or what differs between two raw replies."""
        name = command_name(arguments, self.containers)
        queue = self.queue
        if reference == b"+QUEUED\r\n":
            queue.append(arguments)
        elif name in ("exec", "discard", "reset") or reference == b"+OK\r\n" and name == "multi":
            self.queue = []
        needs_previous = (rules.rule_for(name) or ("",))[0] == "members_of_previous"
        before, self.previous = self.previous, target
        if reference == target:
            return None
        reference, target = parse(reference)[0], parse(target)[0]
        if name == "exec" and isinstance(reference.value, list) and isinstance(target.value, list):
            return self.check_group(queue, reference, target)
        return compare(name, arguments, reference, target, parse(before)[0] if needs_previous and before else None)

    def check_group(self, queue, reference, target):
        if len(reference.value) != len(target.value) or len(queue) != len(reference.value):
            return "EXEC: lengths differ"
        previous = None
        for arguments, a, b in zip(queue, reference.value, target.value):
            problem = compare(command_name(arguments, self.containers), arguments, a, b, previous)
            if problem:
                return "EXEC: %r: %s" % (arguments, problem)
            previous = b
        return None
