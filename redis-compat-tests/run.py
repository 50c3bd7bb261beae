#!/usr/bin/env python3
"""Runs the compatibility suites one after the other against one build, and prints a line for each.

  run.py                                  against target/release/starling
  run.py --server path/to/starling        another build
  run.py --suites upstream,malformed      some of them

Each suite is a program of its own with more options: SUITE/run.py --help. The exit code is 0 when all are green.
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from harness.process import COMMANDS, starling  # noqa: E402


def suites(server):
    """{name: arguments}, in the order in which they run."""
    binary = os.path.abspath(server) if server else COMMANDS["starling"].split()[0]
    template = starling(binary)
    return {
        "upstream": ["--server", binary],
        # The seed is fixed, so that a run of CI is the same every time; the long form draws one.
        "differential": ["--target", template, "--seed", "2000"],
        "malformed": ["--target", template],
        "payloads": ["--target", template],
        "files": ["--target", template],
        "logs": ["--target", template],
        "clients": ["--server", binary],
        "moves": ["--server", binary],
        "leases": ["--server", binary],
        # The seed decides who is killed; what is lost then differs from run to run.
        "failover": ["--server", binary, "--seed", "2000"],
        "restarts": ["--server", binary, "--seed", "2000"],
        "zones": ["--server", binary],
        "faults": ["--server", binary],
        "chaos": ["--server", binary, "--seed", "2000"],
        # What a kill loses differs from run to run; the moments do not.
        "crashes": ["--server", binary, "--seed", "2000"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="path of the binary")
    parser.add_argument("--suites", default="", help="names separated by commas; all that are there by default")
    options = parser.parse_args()
    known = suites(options.server)
    chosen = [name.strip() for name in options.suites.split(",")] if options.suites else list(known)
    results = []
    for name in chosen:
        program = os.path.join(HERE, name, "run.py")
        if not os.path.exists(program):
            if options.suites:
                raise SystemExit("there is no suite '%s'" % name)
            continue
        print("== %s" % name, flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, program] + known[name]).returncode
        results.append((name, code, time.monotonic() - started))
    print("== compatibility")
    for name, code, seconds in results:
        print("%-14s %-6s %5.0f s" % (name, "green" if code == 0 else "RED", seconds))
    return 1 if not results or any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
