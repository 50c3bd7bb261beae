#!/usr/bin/env python3
"""What one server could have answered, and what not. `run.py` runs this first."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from leases.history import History  # noqa: E402

INDOUBT, MOVED = RuntimeError("INDOUBT may be lost"), RuntimeError("MOVED 1 host:1")


class Histories(unittest.TestCase):
    def check(self, operations, count, anew=None):
        """Operations of one key that begins with "old": (value to write or None, sent, received, reply[, node])."""
        history = History({"key": b"old"})
        for value, sent, received, reply, *node in operations:
            history.record("key", value, sent, received, node[0] if node else 1, reply)
        if anew:
            history.begin_anew(["key"], *anew)
        with self.subTest(operations=operations):
            self.assertEqual(len(history.problems()), count, history.problems())

    def test_replies_of_one_server(self):
        self.check([], 0)
        self.check([(None, 1, 2, b"old"), (b"a", 3, 4, b"OK"), (None, 5, 6, b"a")], 0)
        # Two writes at once take place in either order, and a read meanwhile sees any of them.
        for seen in (b"a", b"b"):
            self.check([(b"a", 1, 4, b"OK"), (b"b", 2, 3, b"OK"), (None, 2.5, 3.5, b"old"), (None, 5, 6, seen)], 0)
        # Whether a write took place that failed with INDOUBT is decided by who reads it.
        for seen in (b"a", b"old"):
            self.check([(b"a", 1, 2, INDOUBT), (None, 3, 4, seen)], 0)
        self.check([(b"a", 1, 2, MOVED), (None, 3, 4, b"old")], 0)

    def test_what_no_server_answers(self):
        self.check([(b"a", 1, 2, b"OK"), (None, 3, 4, b"old")], 1)
        self.check([(b"a", 1, 2, b"OK"), (None, 3, 4, None)], 1)
        self.check([(b"a", 1, 2, b"OK"), (b"b", 3, 4, b"OK"), (None, 5, 6, b"a"), (None, 7, 8, b"b")], 1)
        self.check([(b"a", 1, 4, b"OK"), (None, 2, 3, b"a"), (None, 3.5, 5, b"old")], 1)
        self.check([(b"a", 1, 2, INDOUBT), (None, 3, 4, b"a"), (None, 5, 6, b"old")], 1)
        self.check([(b"a", 1, 2, MOVED), (None, 3, 4, b"a")], 1)
        self.check([(None, 1, 2, b"stranger")], 1)
        self.check([(None, 1, 2, RuntimeError("ERR unheard of"))], 1)

    def test_keys_that_begin_anew(self):
        # Node 1 had the key, and lost it between 10 and 11.
        check = lambda operations, count: self.check(operations, count, anew=(1, 10, 11))
        acknowledged = [(b"a", 1, 2, b"OK"), (None, 3, 4, b"a")]
        check(acknowledged + [(None, 12, 13, None, 2), (b"b", 14, 15, b"OK", 2), (None, 16, 17, b"b", 2)], 0)
        # It was asked before, and answers late; it was asked later, and answers.
        check(acknowledged + [(b"b", 12, 13, b"OK", 2), (None, 9, 20, b"a")], 0)
        check(acknowledged + [(b"b", 12, 13, b"OK", 2), (None, 14, 20, b"a")], 1)
        # A write is acknowledged that nobody finds.
        check([(b"b", 12, 13, b"OK", 2), (b"c", 14, 20, b"OK"), (None, 21, 22, b"b", 2)], 1)
        check([(b"b", 12, 13, b"OK", 2), (None, 14, 15, None, 2)], 1)
        check([(b"a", 1, 2, b"OK"), (None, 3, 4, b"old")], 1)
        # It was asked before, and does it when it has the key again.
        check([(b"a", 9, 14, b"OK"), (None, 12, 13, None, 2), (None, 15, 16, b"a")], 0)


if __name__ == "__main__":
    unittest.main()
