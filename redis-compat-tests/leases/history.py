"""What was asked of some keys and what was answered, and whether one server could have answered so.

Each key is a register. Every write has a value of its own, so all that is known of a value is a *zone*: from the first
moment at which it had surely been there to the last at which it surely still was. Zones of two values that interlock, or
one that lies within another, mean that a value came back after a later one: an answer by a node that no more had the key,
or an acknowledged write that is gone. (Gibbons and Korach, Testing Shared Memories, 1997: for registers whose writes
are all distinct this is linearizability, no more and no less.)

Times are seconds of `time.monotonic`, each from before something was sent to after its reply was read.
"""
import threading
from collections import Counter, defaultdict, namedtuple

ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
# A request that fails with one of these was not executed; with INDOUBT, or a connection that closes, it may have been.
NOT_EXECUTED = ("MOVED", "CLUSTERDOWN", "TRYAGAIN")
IN_DOUBT = ("INDOUBT", "closed")
ALLOWED = NOT_EXECUTED + IN_DOUBT
NEVER, ALWAYS = float("-inf"), float("inf")

# value: bytes or None. outcome: of a write.
Write = namedtuple("Write", "value sent received node outcome")
Read = namedtuple("Read", "value sent received node")


class History:
    """What happened since a moment at which nothing was under way and each key had a known value."""

    def __init__(self, values):
        self.lock = threading.Lock()
        self.values = dict(values)
        self.writes = defaultdict(list)
        self.reads = defaultdict(list)
        self.requests = 0
        self.errors = Counter()
        self.begun_anew = {}

    def record(self, key, value, sent, received, node, reply):
        """A reply to SET of the value, or to GET where the value is None; errors are exceptions. What kind it is, in a word."""
        kind = str(reply).split(" ", 1)[0] if isinstance(reply, Exception) else "answered"
        with self.lock:
            self.requests += 1
            if kind != "answered":
                self.errors[kind] += 1
            if value is not None:
                outcome = ACKNOWLEDGED if reply == b"OK" else REFUSED if kind in NOT_EXECUTED else UNKNOWN
                self.writes[key].append(Write(value, sent, received if outcome == ACKNOWLEDGED else ALWAYS, node, outcome))
            elif kind == "answered":
                self.reads[key].append(Read(reply, sent, received, node))
        return kind

    def begin_anew(self, keys, node, asked, served):
        """The node lost these keys at some moment between the two: they begin with nothing."""
        for key in keys:
            self.begun_anew[key] = node, asked, served

    def problems(self):
        """What one server could not have answered, a line each."""
        lines = ["%d replies are %s" % (count, kind) for kind, count in sorted(self.errors.items()) if kind not in ALLOWED]
        for key in self.values:
            lines += ["%s: %s" % (key, line) for span in self.spans(key) for line in examine(*span)]
        return lines

    def spans(self, key):
        """[(writes, reads)] of a key: all, or those before and after it began anew. None of one span counts in another."""
        initial = Write(self.values[key], NEVER, NEVER, None, ACKNOWLEDGED)
        writes, reads = self.writes[key], self.reads[key]
        if key not in self.begun_anew:
            return [([initial] + writes, reads)]
        node, asked, served = self.begun_anew[key]
        early = [[one for one in operations if one.node == node and one.sent <= asked] for operations in (writes, reads)]
        # What the node that had the key was asked before, and answered later, it may have done before or after.
        undecided = [write._replace(received=ALWAYS, outcome=UNKNOWN) for write in early[0]
                     if write.received > asked and write.outcome != REFUSED]
        before = ([initial] + [write for write in early[0] if write.received <= asked or write.outcome == REFUSED] + undecided,
                  [read for read in early[1] if read.received <= asked])
        after = [[one for one in operations if one.received > asked and (one.node != node or one.sent > asked)]
                 for operations in (writes, reads)]
        anew = Write(None, asked, served, None, ACKNOWLEDGED)
        return [before, ([anew] + after[0] + undecided, after[1])]

    def longest_silence(self, since, until):
        """The longest time within which some key was neither read nor written with success, in seconds."""
        longest = 0
        for key in self.values:
            operations = self.reads[key] + [write for write in self.writes[key] if write.outcome == ACKNOWLEDGED]
            times = sorted(operation.received for operation in operations if since < operation.received < until)
            longest = max([longest] + [after - before for before, after in zip([since] + times, times + [until])])
        return longest


class Zone:
    """When a value was there: after `first` it had surely been there, at `last` it surely still was, or was yet to come."""

    def __init__(self, write):
        self.write, self.reads = write, []
        self.first, self.last = write.received, write.sent

    def add(self, read):
        self.reads.append(read)
        self.first, self.last = min(self.first, read.received), max(self.last, read.sent)

    @property
    def is_forward(self):
        return self.first < self.last


def examine(writes, reads):
    """What is wrong with what is known of one key."""
    zones, problems = {write.value: Zone(write) for write in writes if write.outcome != REFUSED}, []
    refused = {write.value for write in writes if write.outcome == REFUSED}
    strangers = Counter()
    for read in reads:
        if read.value in zones:
            zones[read.value].add(read)
        else:
            strangers[read.value, read.node] += 1
    for (value, node), count in strangers.items():
        why = "the write of which was refused" if value in refused else "though nothing removed it" if value is None \
            else "from before it began anew, or never written"
        problems.append("%s answers %s, %s (%d times)" % (node, shown(value), why, count))
    # Of a write whose outcome is unknown, and that nobody has seen, nothing follows.
    known = [zone for zone in zones.values() if zone.reads or zone.write.outcome == ACKNOWLEDGED]
    return problems + [contradiction(one, other) for one, other in interlocked(known)]


def interlocked(zones):
    """Pairs of values of which each was there before the other; each value once, with the one that was seen longest."""
    pairs, forward = [], None
    for zone in sorted(zones, key=lambda zone: min(zone.first, zone.last)):
        if forward and forward.first < zone.last and zone.first < forward.last:
            pairs.append((forward, zone))
        if zone.is_forward and (not forward or zone.last > forward.last):
            forward = zone
    return pairs


def contradiction(one, other):
    """Says of two values that each was there before the other."""
    late = max([read for read in one.reads] or [one.write], key=lambda operation: operation.sent)
    return "%s, written at %s, is there again for a request sent to %s %.3f s after %s, written at %s, was there" % (
        shown(one.write.value), one.write.node or "the beginning", late.node, late.sent - other.first, shown(other.write.value),
        other.write.node or "the beginning")


def shown(value):
    return "nil" if value is None else value.decode("utf-8", "replace")
