#!/usr/bin/env python3
"""When a case is said to have become dearer, and how callgrind's files are read. `make bench-instructions` runs this first."""
import unittest

from callgrind import own_shares
from instructions import is_dearer

# A function of file.rs that calls another twice; numbers stand for names that have been met, positions may be relative.
COUNTS = """events: Ir

fl=(1) file.rs
fn=(1) caller
10 100
+2 7
cfn=(2) callee of <T>
calls=2 40
+1 500
fn=(2)
40 480
* 20
fn=(1)
-3 1

totals: 608
"""


class Instructions(unittest.TestCase):
    def test_a_case_is_dearer_when_its_sources_are_to_blame(self):
        # Instructions of (SET, PING) now, where both took 100 before; whether the same tools made both; the verdict.
        for now, is_same, verdict in [
            ((105, 100), True, False), ((106, 100), True, True), ((106, 120), True, True), ((60, 60), True, False),
            ((109, 100), False, False), ((112, 100), False, True), ((112, 112), False, False), ((95, 80), False, False),
            ((131, 131), False, True),
        ]:
            with self.subTest(now=now, is_same=is_same):
                counts = dict(zip(("SET/P16", "PING/P16"), now))
                self.assertEqual(is_dearer("SET/P16", counts, {"SET/P16": 100, "PING/P16": 100}, is_same), verdict)

    def test_a_case_that_is_not_remembered_is_not_dearer(self):
        self.assertFalse(is_dearer("SET/P16", {"SET/P16": 100}, {}, True))

    def test_calls_count_in_the_function_that_is_called(self):
        self.assertEqual(own_shares(COUNTS.splitlines(True)), {"caller": 108, "callee of <T>": 500})


if __name__ == "__main__":
    unittest.main()
