#!/usr/bin/env python3
"""What one server could have answered about a key, and what not. `run.py` runs this first."""
import os
import random
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from chaos.linear import ACKNOWLEDGED, GOOD, MODELS, REFUSED, UNDECIDED, UNKNOWN, WRONG, Operation, check  # noqa: E402

LOST, NO = "unknown", "refused"


def operation(words, sent, received, reply):
    """`words`: "SET a". A reply of LOST is an unknown outcome, NO a refusal."""
    name, _, argument = words.partition(" ")
    outcome = {LOST: UNKNOWN, NO: REFUSED}.get(reply if isinstance(reply, str) else None, ACKNOWLEDGED)
    return Operation(name, argument.encode() or None, sent, received, outcome, reply, 1, 1)


class Histories(unittest.TestCase):
    def check(self, kind, verdict, *rows):
        with self.subTest(rows=rows):
            found = check(kind, [operation(*row) for row in rows])
            self.assertEqual(found.kind, verdict, found)

    def test_one_after_the_other(self):
        self.check("register", GOOD)
        self.check("register", GOOD, ("GET", 1, 2, None), ("SET a", 3, 4, b"OK"), ("GET", 5, 6, b"a"))
        self.check("counter", GOOD, ("GET", 1, 2, None), ("INCR", 3, 4, 1), ("INCR", 5, 6, 2), ("GET", 7, 8, b"2"))
        self.check("set", GOOD, ("SADD a", 1, 2, 1), ("SADD a", 3, 4, 0), ("SADD b", 5, 6, 1), ("SMEMBERS", 7, 8, [b"b", b"a"]),
                   ("SREM a", 9, 10, 1), ("SISMEMBER a", 11, 12, 0), ("SREM a", 13, 14, 0))
        self.check("list", GOOD, ("LRANGE", 0, 1, []), ("RPUSH a", 1, 2, 1), ("RPUSH b", 3, 4, 2), ("LRANGE", 5, 6, [b"a", b"b"]))

    def test_at_the_same_time(self):
        for seen in (b"a", b"b"):
            self.check("register", GOOD, ("SET a", 1, 4, b"OK"), ("SET b", 2, 3, b"OK"), ("GET", 2.5, 3.5, None), ("GET", 5, 6, seen))
        self.check("counter", GOOD, ("INCR", 1, 9, 3), ("INCR", 2, 8, 1), ("INCR", 3, 7, 2), ("GET", 4, 6, b"3"))
        self.check("list", GOOD, ("RPUSH a", 1, 4, 2), ("RPUSH b", 1, 4, 1), ("LRANGE", 5, 6, [b"b", b"a"]))
        self.check("list", GOOD, ("RPUSH a", 1, 4, 2), ("RPUSH b", 1, 4, 1), ("LRANGE", 2, 3, [b"b"]))
        # Two reads while a write is under way: the second may not see less than the first.
        self.check("register", GOOD, ("SET a", 1, 8, b"OK"), ("GET", 2, 3, None), ("GET", 4, 5, b"a"))
        self.check("register", WRONG, ("SET a", 1, 8, b"OK"), ("GET", 2, 3, b"a"), ("GET", 4, 5, None))

    def test_stale_reads(self):
        self.check("register", WRONG, ("SET a", 1, 2, b"OK"), ("SET b", 3, 4, b"OK"), ("GET", 5, 6, b"a"))
        self.check("counter", WRONG, ("INCR", 1, 2, 1), ("INCR", 3, 4, 2), ("GET", 5, 6, b"1"))
        self.check("set", WRONG, ("SADD a", 1, 2, 1), ("SISMEMBER a", 3, 4, 0))
        self.check("list", WRONG, ("RPUSH a", 1, 2, 1), ("LRANGE", 3, 4, []), ("LRANGE", 5, 6, [b"a"]))

    def test_acknowledged_writes_that_are_gone(self):
        self.check("register", WRONG, ("SET a", 1, 2, b"OK"), ("GET", 3, 4, None))
        self.check("counter", WRONG, ("INCR", 1, 2, 1), ("INCR", 3, 4, 2), ("INCR", 5, 6, 2))
        self.check("set", WRONG, ("SADD a", 1, 2, 1), ("SADD b", 3, 4, 1), ("SMEMBERS", 5, 6, [b"b"]))
        self.check("list", WRONG, ("RPUSH a", 1, 2, 1), ("RPUSH b", 3, 4, 2), ("LRANGE", 5, 6, [b"a"]))
        self.check("list", WRONG, ("RPUSH a", 1, 2, 1), ("RPUSH b", 3, 4, 1))
        # One that was read is not gone either, whether it was acknowledged or not.
        self.check("register", WRONG, ("SET a", 1, 2, LOST), ("GET", 3, 4, b"a"), ("GET", 5, 6, None))

    def test_values_of_refused_writes(self):
        self.check("register", GOOD, ("SET a", 1, 2, NO), ("GET", 3, 4, None))
        self.check("register", WRONG, ("SET a", 1, 2, NO), ("GET", 3, 4, b"a"))
        self.check("counter", WRONG, ("INCR", 1, 2, NO), ("GET", 3, 4, b"1"))
        self.check("set", WRONG, ("SADD a", 1, 2, NO), ("SADD a", 3, 4, 0))
        self.check("list", WRONG, ("RPUSH a", 1, 2, NO), ("RPUSH b", 3, 4, 1), ("LRANGE", 5, 6, [b"a", b"b"]))
        self.check("register", WRONG, ("GET", 3, 4, b"never sent"))

    def test_increments_twice(self):
        self.check("counter", WRONG, ("INCR", 1, 2, 1), ("GET", 3, 4, b"2"))
        self.check("counter", WRONG, ("INCR", 1, 2, 2), ("GET", 3, 4, b"2"))
        # One without an answer may be done once.
        self.check("counter", GOOD, ("INCR", 1, 2, LOST), ("INCR", 3, 4, 2), ("GET", 5, 6, b"2"))
        self.check("counter", WRONG, ("INCR", 1, 2, LOST), ("INCR", 3, 4, 3))

    def test_elements_that_come_back(self):
        self.check("set", WRONG, ("SADD a", 1, 2, 1), ("SREM a", 3, 4, 1), ("SISMEMBER a", 5, 6, 1))
        self.check("set", WRONG, ("SADD a", 1, 2, 1), ("SREM a", 3, 4, 1), ("SMEMBERS", 5, 6, []), ("SREM a", 7, 8, 1))
        self.check("set", GOOD, ("SADD a", 0, 1, LOST), ("SADD a", 1, 2, 1), ("SREM a", 3, 4, 1), ("SISMEMBER a", 5, 6, 1))
        self.check("register", WRONG, ("SET a", 1, 2, b"OK"), ("SET b", 3, 4, b"OK"), ("GET", 5, 6, b"b"), ("GET", 7, 8, b"a"))

    def test_appends_out_of_order(self):
        self.check("list", WRONG, ("RPUSH a", 1, 2, 1), ("RPUSH b", 3, 4, 2), ("LRANGE", 5, 6, [b"b", b"a"]))
        self.check("list", WRONG, ("RPUSH a", 1, 4, 1), ("RPUSH b", 1, 4, 2), ("LRANGE", 5, 6, [b"b", b"a"]))
        self.check("list", WRONG, ("RPUSH a", 1, 2, 1), ("LRANGE", 3, 4, [b"a", b"a"]))

    def test_unknown_outcomes_that_take_effect_late(self):
        self.check("register", GOOD, ("SET a", 1, 2, LOST), ("SET b", 3, 4, b"OK"), ("GET", 5, 6, b"b"), ("GET", 7, 8, b"a"))
        self.check("counter", GOOD, ("INCR", 1, 2, LOST), ("INCR", 3, 4, 1), ("GET", 5, 6, b"1"), ("GET", 7, 8, b"2"))
        self.check("set", GOOD, ("SREM a", 1, 2, LOST), ("SADD a", 3, 4, 1), ("SISMEMBER a", 5, 6, 1), ("SISMEMBER a", 7, 8, 0))
        self.check("list", GOOD, ("RPUSH a", 1, 2, LOST), ("RPUSH b", 3, 4, 1), ("LRANGE", 5, 6, [b"b"]), ("LRANGE", 7, 8, [b"b", b"a"]))
        # Never is right too, and before it was sent is not.
        self.check("list", GOOD, ("RPUSH a", 1, 2, LOST), ("RPUSH b", 3, 4, 1), ("LRANGE", 7, 8, [b"b"]))
        self.check("register", WRONG, ("GET", 1, 2, b"a"), ("SET a", 3, 4, LOST))

    def test_made_up_histories(self):
        """Of a server that is right, with outcomes that nobody hears; and the same with one reply changed."""
        for seed in range(60):
            generator, kind = random.Random(seed), list(MODELS)[seed % len(MODELS)]
            operations = simulated(kind, generator, 120)
            self.assertEqual(check(kind, operations).kind, GOOD, seed)
            reads = [at for at, one in enumerate(operations) if one.outcome == ACKNOWLEDGED and one.name in MODELS[kind].READS]
            at = generator.choice(reads)
            wrong = {"GET": b"-1", "LRANGE": [b"-1"], "SMEMBERS": [b"-1"], "SISMEMBER": 2}[operations[at].name]
            operations[at] = operations[at]._replace(reply=wrong)
            self.assertEqual(check(kind, operations).kind, WRONG, seed)

    def test_many_unknown_outcomes_are_decided_soon(self):
        started = time.monotonic()
        for seed, kind in enumerate(MODELS):
            operations = simulated(kind, random.Random(seed), 800, lost=0.05)
            self.assertEqual(check(kind, operations).kind, GOOD, kind)
        self.assertLess(time.monotonic() - started, 30)

    def test_a_bound_is_no_verdict(self):
        operations = [operation("SET %d" % at, 1, 3, b"OK") for at in range(20)] + [operation("GET", 4, 5, b"none")]
        self.assertEqual(check("register", operations, steps_max=100).kind, UNDECIDED)


def simulated(kind, generator, count, lost=0.05):
    """A history of six clients at a server that does one thing at a time, at some moment between sending and answering."""
    model, names = MODELS[kind], {
        "register": ("SET", "GET"), "counter": ("INCR", "GET"), "list": ("RPUSH", "LRANGE"),
        "set": ("SADD", "SREM", "SISMEMBER", "SMEMBERS")}[kind]
    clocks, drawn = [0.0] * 6, []
    for number in range(count):
        client = min(range(6), key=clocks.__getitem__)
        name = generator.choice(names)
        argument = b"%d" % (generator.randrange(4) if kind == "set" else number) if name not in ("GET", "LRANGE", "SMEMBERS", "INCR") else None
        sent = clocks[client] + generator.random()
        received = sent + generator.random() * 2
        is_lost = generator.random() < lost
        # What nobody hears of is done late, or never.
        done = sent + generator.random() * 10 if is_lost else generator.uniform(sent, received)
        clocks[client] = received
        drawn.append((done, is_lost, Operation(name, argument, sent, received, UNKNOWN if is_lost else ACKNOWLEDGED, None, client, 1)))
    value, found = model.EMPTY, []
    for _done, is_lost, one in sorted(drawn, key=lambda row: row[0]):
        if is_lost and generator.random() < 0.5:
            found.append(one)
            continue
        value, reply = model.apply(value, one)
        found.append(one if is_lost else one._replace(reply=reply))
    end = max(one.received for one in found) + 20
    name = names[-1]
    return sorted(found, key=lambda one: one.sent) + [Operation(
        name, None, end, end + 1, ACKNOWLEDGED, model.apply(value, Operation(name, None, 0, 0, None, None, 0, 0))[1], 0, 1)]


if __name__ == "__main__":
    unittest.main()
