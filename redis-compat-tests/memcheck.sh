#!/bin/sh
# Runs the tests of the files with unsafe code under valgrind.
set -e
command -v valgrind >/dev/null || { echo "valgrind is not installed"; exit 1; }
binary=$(cargo test --locked --lib --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "starling":
        print(message["executable"])')
# rustix finds the vDSO where valgrind has taken it away: see benches/callgrind.py.
PROPTEST_CASES=8 PYTHONPATH="$(dirname "$0")/../benches" python3 -c '
import os, sys
from callgrind import forbid_auxv
forbid_auxv()
os.execvp("valgrind", ["valgrind"] + sys.argv[1:])' \
    --error-exitcode=1 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite -q \
    "$binary" engine:: values::segments
