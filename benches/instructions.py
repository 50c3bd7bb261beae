#!/usr/bin/env python3
"""Instructions per request of the server, counted by callgrind, beside those that instructions.json remembers.

  instructions.py                     every case; fails where one has become dearer
  instructions.py --write             remember what is counted now
  instructions.py --against OTHER     beside another binary in the same run, and the functions that differ most
  instructions.py --cases GET/P16     some of the cases

A change that makes requests slower shows here before it shows in a time: a count moves by less than 1 % between runs, on a
busy machine too. It knows nothing of waiting for memory, of locks that others hold, or of the kernel: `make bench` does.
README.md says when it fails, and what to do then. Progress goes to stderr, the Markdown table to stdout.
"""
import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys

from callgrind import Counted, forbid_auxv, is_supported
from measure import HERE, markdown
from harness.process import COMMANDS
from harness.wire import Connection, encode

MEMORY = os.path.join(HERE, "instructions.json")
KEYS, MEMBERS = 1000, 1000
REQUESTS = 4000  # of a round; also those before the first that counts
ROUNDS = 3  # the least of them counts: timers and the growth of a table only add
STEP = 7  # neighbours in a pipeline are not neighbours in memory
VALUES = [bytes([65 + number % 26]) * 64 for number in range(26)]
# What a case may rise by: where the tools that built it are those of instructions.json, and elsewhere (see `judged`).
RISE_SAME, RISE_OTHER, RISE_OTHER_MOST = 1.05, 1.10, 1.30
FALL_WORTH_STORING = 0.95
CHANGE_SHOWN = 0.02  # functions are named for cases that differ by more
CALIBRATION = {16: "PING/P16", 1: "PING/P1"}


def value(number):
    return VALUES[number % 26]


def key(number):
    return b"key:%07d" % (number * STEP % KEYS)


def collection(number):
    return b"collection:%d" % (number % 10)


def member(number):
    return b"element:%07d" % (number * STEP % MEMBERS)


# name: (requests before, request number N, pipeline). The requests before make every key and member that is written later.
STRINGS = [[b"SET", key(number), value(number)] for number in range(KEYS)]
FIELDS = [[b"HSET", collection(each), member(number), value(number)] for each in range(10) for number in range(MEMBERS)]
SCORES = [[b"ZADD", collection(each), number, member(number)] for each in range(10) for number in range(MEMBERS)]
PING = ([], lambda number: [b"PING"])
GET = (STRINGS, lambda number: [b"GET", key(number)])
SET = (STRINGS, lambda number: [b"SET", key(number), value(number + 1)])
CASES = {
    "PING/P16": PING + (16,),
    "GET/P16": GET + (16,),
    "SET/P16": SET + (16,),
    "INCR/P16": ([[b"SET", key(number), 1000] for number in range(KEYS)], lambda number: [b"INCR", key(number)], 16),
    "HSET/P16": (FIELDS, lambda number: [b"HSET", collection(number // 3), member(number), value(number + 1)], 16),
    "ZADD/P16": (SCORES, lambda number: [b"ZADD", collection(number // 3), number * 37 % 1009, member(number)], 16),
    "LPUSH/P16": ([], lambda number: [b"LPUSH", collection(number), value(number)], 16),
    "PING/P1": PING + (1,),
    "GET/P1": GET + (1,),
    "SET/P1": SET + (1,),
}


def send(connection, requests, pipeline):
    """One pipeline after the other: the next is sent when the last is answered, so each is one turn of the server."""
    for begin in range(0, len(requests), pipeline):
        group = requests[begin:begin + pipeline]
        connection.send(b"".join(encode(words) for words in group))
        for reply in connection.receive(len(group)):
            if reply.startswith(b"-"):
                raise RuntimeError("%s was answered %s" % (group[0], reply.decode()))


def counted(binary, case, port):
    """Instructions per request of one case, and the functions' own shares of them."""
    before, request, pipeline = CASES[case]
    with Counted(binary, port) as process:
        process.wait_ready()
        connection = Connection(process.server.port)
        send(connection, before, 64)
        rounds = []
        for number in range(ROUNDS + 1):
            send(connection, [request(number * REQUESTS + each) for each in range(REQUESTS)], pipeline)
            rounds.append(process.taken())
        connection.close()
    total, shares = min(rounds[1:], key=lambda found: found[0])
    print("%-10s %-50s %6.0f" % (case, binary, total / REQUESTS), file=sys.stderr, flush=True)
    return total / REQUESTS, {name: share / REQUESTS for name, share in shares.items()}


def count_all(binary, cases, port):
    return {case: counted(binary, case, port) for case in cases}


def totals(found):
    return {case: each[0] for case, each in found.items()}


def made_of(binary):
    """What a count depends on besides the sources: who compiled, which libc, which valgrind, which processor it shows."""
    with open(binary, "rb") as file:
        compilers = set(re.findall(rb"rustc version [^()\0]+\([^()\0]+\)|GCC: \([^()\0]+\) [0-9.]+", file.read()))
    with open("/proc/cpuinfo") as file:
        has_avx2 = re.search(r"\bavx2\b", file.read()) is not None
    return {
        "machine": platform.machine(),
        "avx2": has_avx2,
        "compilers": sorted(text.decode("ascii", "replace") for text in compilers),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
    }


def is_dearer(case, now, before, is_same):
    """Whether a case has become dearer. `now` and `before` are {case: instructions per request}.

    With the tools of `before`, a rise is the sources' doing. Other compilers and libraries move all counts, so then a
    case has become dearer when it has both by itself and compared with PING of the same run, or by very much.
    """
    if case not in before:
        return False
    rise = now[case] / before[case]
    if is_same:
        return rise > RISE_SAME
    calibration = CALIBRATION[CASES[case][2]]
    relative = rise * before[calibration] / now[calibration]
    return (rise > RISE_OTHER and relative > RISE_OTHER) or rise > RISE_OTHER_MOST


def stored():
    """Counts that are remembered and what made them; nothing where there are none for this kind of machine."""
    try:
        with open(MEMORY) as file:
            memory = json.load(file)
    except FileNotFoundError:
        return {}, {}
    if memory["made_of"]["machine"] != platform.machine():
        print("nothing is remembered of %s: nothing is compared" % platform.machine())
        return {}, {}
    return memory["instructions"], memory["made_of"]


def store(found, makers):
    with open(MEMORY, "w") as file:
        json.dump({"made_of": makers, "instructions": {case: round(each) for case, each in totals(found).items()}}, file, indent=1)
        file.write("\n")


def print_table(now, before, is_same):
    rows = []
    for case, count in now.items():
        row = [case, "%.0f" % count, "-", "-", ""]
        if case in before:
            change = count / before[case]
            row[2:4] = ["%.0f" % before[case], "%+.1f %%" % (100 * (change - 1))]
            row[4] = "DEARER" if is_dearer(case, now, before, is_same) else "cheaper" if change < FALL_WORTH_STORING else ""
        rows.append(row)
    print(markdown(["case", "instructions", "before", "change", ""], rows))


def print_functions(found, found_before, count=12):
    """The functions whose own shares differ most, of the cases that differ."""
    for case in found:
        if abs(found[case][0] / found_before[case][0] - 1) < CHANGE_SHOWN:
            continue
        now, before = found[case][1], found_before[case][1]
        differences = {name: now.get(name, 0) - before.get(name, 0) for name in set(now) | set(before)}
        print("\n%s: own instructions of the functions that differ most" % case)
        for name in sorted(differences, key=lambda name: -abs(differences[name]))[:count]:
            print("  %+6.0f  (%.0f -> %.0f)  %s" % (differences[name], before.get(name, 0), now.get(name, 0), name[:150]))


def compare(options, cases):
    """Counts, prints, and stores if that is asked for. Whether all is well."""
    binary = os.path.abspath(options.server)
    found, makers = count_all(binary, cases, options.port), made_of(binary)
    found_before = None
    if options.against:
        found_before = count_all(os.path.abspath(options.against), cases, options.port)
        before, makers_before = totals(found_before), made_of(options.against)
    else:
        before, makers_before = stored()
    is_same = makers == makers_before
    # Who is found dearer is counted once more before that is said: noise only adds.
    for case in cases:
        if is_dearer(case, totals(found), before, is_same):
            found[case] = min(found[case], counted(binary, case, options.port), key=lambda each: each[0])
    now = totals(found)
    print_table(now, before, is_same)
    for name in makers:
        if before and makers[name] != makers_before.get(name):
            print("\nmade with other %s: %s, before %s" % (name, makers[name], makers_before.get(name)))
    if found_before:
        print_functions(found, found_before)
    if options.write:
        store(found, makers)
        return True
    dearer = [case for case in cases if is_dearer(case, now, before, is_same)]
    if dearer:
        print("\nDEARER: %s. benches/README.md says what to do." % ", ".join(dearer))
    return not dearer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=COMMANDS["starling"].split()[0], help="the binary")
    parser.add_argument("--against", help="another binary to compare with, instead of instructions.json")
    parser.add_argument("--cases", default=",".join(CASES), help="names separated by commas")
    parser.add_argument("--write", action="store_true", help="remember the counts in instructions.json")
    parser.add_argument("--port", type=int, help="a free one unless given")
    options = parser.parse_args()
    asked = options.cases.split(",")
    if set(asked) - set(CASES):
        raise SystemExit("unknown cases: %s; known: %s" % (options.cases, ", ".join(CASES)))
    if options.write and set(asked) != set(CASES):
        raise SystemExit("--write stores all cases")
    missing = [tool for tool in ("valgrind", "vgdb") if not shutil.which(tool)]
    if missing:
        raise SystemExit("not installed: %s (make test-tools)" % ", ".join(missing))
    if not is_supported():
        print("instructions are not counted on %s" % platform.machine())
        return 0
    forbid_auxv()
    # The calibration is counted whatever is asked for: with other tools nothing is judged without it.
    cases = [case for case in CASES if case in asked or case in CALIBRATION.values()]
    return 0 if compare(options, cases) else 1


if __name__ == "__main__":
    sys.exit(main())
