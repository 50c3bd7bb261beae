#!/usr/bin/env python3
"""Runs Redis's own Tcl suite against Starling, file by file, and compares with what redis-server 7.0.15 passes.

  run.py                               against target/release/starling; the files excused as a whole are not run
  run.py --only unit/type/string       one file or several, separated by commas (excused or not)
  run.py --all                         also the files excused as a whole; says what passes there
  run.py --own-server                  only the files for which the suite starts servers itself (named own:...)
  run.py --cluster-mode                only one cluster node with all slots (files named cluster:...)
  run.py --server redis                redis-server: checks this runner
  run.py --prune                       takes lines out of exceptions.tsv whose tests pass now
  run.py --write-exceptions            drafts the exceptions of this run in .work/upstream/exceptions.draft.tsv

Red (exit 1): a test of the baseline fails and exceptions.tsv does not excuse it; an excused test passes (its line must
leave); a line excuses nothing. Outputs of the suite are kept in .work/upstream. Python 3.9 or newer and Tcl.
"""
import argparse
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
from harness.process import COMMANDS, WORK, is_redis, starling  # noqa: E402
from lists import Exceptions, ListError, Verdict, baseline, prune, write_baseline  # noqa: E402
from source import SourceError, suite_directory  # noqa: E402
from suite import Runner  # noqa: E402

LOGS = os.path.join(WORK, "upstream")
# Begun first, so that the last one is not long.
SLOW = ("unit/hyperloglog", "unit/type/list-3", "unit/pause", "unit/type/zset", "unit/expire", "unit/dump", "unit/geo",
        "cluster:unit/hyperloglog", "cluster:unit/geo", "cluster:unit/type/list-3", "own:unit/memefficiency",
        "own:unit/maxmemory", "own:unit/aofrw", "own:unit/obuf-limits")
# Files that the suite runs only against servers that it starts itself, or some of whose tests it runs only then.
OWN = tuple("own:" + name for name in (
    "unit/acl", "unit/acl-v2", "unit/aofrw", "unit/auth", "unit/client-eviction", "unit/dump", "unit/info",
    "unit/introspection", "unit/limits", "unit/maxmemory", "unit/memefficiency", "unit/multi", "unit/networking",
    "unit/obuf-limits", "unit/oom-score-adj", "unit/other", "unit/pendingquerybuf", "unit/pubsubshard", "unit/querybuf",
    "unit/replybufsize", "unit/shutdown", "unit/wait", "unit/cluster-scripting", "unit/cluster/misc", "integration/aof",
    "integration/aof-multi-part", "integration/convert-ziplist-hash-on-load", "integration/convert-ziplist-zset-on-load",
    "integration/convert-zipmap-hash-on-load", "integration/corrupt-dump", "integration/dismiss-mem",
    "integration/logging", "integration/rdb", "integration/redis-benchmark",
))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="starling", help="'starling', 'redis', or the path of a binary")
    parser.add_argument("--only", default="", help="these files, separated by commas")
    parser.add_argument("--jobs", type=int, default=min(3, os.cpu_count() or 2), help="files at a time")
    parser.add_argument("--all", action="store_true", help="also the files that are excused as a whole")
    parser.add_argument("--own-server", action="store_true", help="only the files named own:...")
    parser.add_argument("--cluster-mode", action="store_true")
    parser.add_argument("--ignore-encoding", action="store_true", help="do not compare OBJECT ENCODING")
    parser.add_argument("--write-exceptions", action="store_true", help="draft exceptions.tsv from this run")
    parser.add_argument("--prune", action="store_true", help="take the lines that must leave out of exceptions.tsv")
    parser.add_argument("--write-baseline", action="store_true", help="take this run (of redis-server) as the baseline")
    parser.add_argument("--verbose", action="store_true", help="print the failures of excused tests too")
    return parser.parse_args()


def server_words(server):
    """(template of the command line, what the stand-in for redis-server executes)."""
    if server in COMMANDS:
        command = COMMANDS[server]
    elif is_redis(server):
        command = COMMANDS["redis"].replace("redis-server", server, 1)
    else:
        command = starling(server)
    binary = shutil.which(command.split()[0])
    if not binary:
        raise SystemExit("%s is not there: build it first (make build)" % command.split()[0])
    if is_redis(command):
        command += " --enable-debug-command yes"
    return command, binary


def chosen(options, files, exceptions):
    """The files to run, slow ones first, and those left out because they are excused as a whole."""
    if options.only:
        wanted = [name.strip() for name in options.only.split(",")]
        names = [file for file in files if file in wanted or (options.cluster_mode and file[8:] in wanted)]
        lost = [name for name in wanted if name not in files and "cluster:" + name not in files]
        if options.write_baseline:
            names, lost = wanted, []
        if lost:
            raise SystemExit("not in the baseline: %s" % ", ".join(lost))
        return names, []
    if options.write_baseline and options.own_server:
        return list(OWN), []
    excused = [] if options.all else sorted(file for file in files if file in exceptions.whole)
    names = [file for file in files if file not in excused]
    return sorted(names, key=lambda name: (name not in SLOW, name)), excused


def details(outcome, name):
    if name in outcome.hung:
        return ["hangs"]
    around = [failed for failed in outcome.failed if failed.startswith("outside a test: ")]
    return outcome.failed.get(name) or ["not reached; " + "; ".join(around + [outcome.aborted or ""])]


def print_failures(outcomes, failures):
    for file, name in failures:
        lines = details(outcomes[file], name)
        print("  %s\t%s\n      %s" % (file, name, "\n      ".join(line[:400] for line in lines[:3])))


def write_draft(path, files, outcomes, exceptions, verdict):
    """The list as it would have to be after this run: lines that still hold, and new ones without a reason."""
    leaving, missing = set(verdict.leaving), set(verdict.missing)
    with open(path, "w", encoding="utf-8") as draft:
        draft.write("# file, test name (`*`: the whole file; or a pattern), reason\n")
        leaving |= exceptions.inherited
        for file in sorted(set(files) | set(exceptions.whole)):
            lines = {"*": exceptions.whole[file]} if file in exceptions.whole and (file, "*") not in leaving else {}
            for kept in (exceptions.exact.get(file, {}), exceptions.patterns.get(file, {})):
                lines.update({name: reason for name, reason in kept.items() if (file, name) not in leaving})
            for name in sorted(name for found, name in missing if found == file):
                lines[name] = "? " + " ".join(details(outcomes[file], name)).replace("\t", " ")[:160]
            for name, reason in lines.items():
                draft.write("%s\t%s\t%s\n" % (file, name, reason))
    print("draft: %s" % path)


def report(files, outcomes, exceptions, verdict, excused_files):
    if verdict.newly:
        print("%d tests of files that are excused as a whole pass:" % len(verdict.newly))
        for file in sorted({file for file, _ in verdict.newly}):
            print("  %s: %d of %d" % (file, sum(1 for found, _ in verdict.newly if found == file), len(files[file])))
    if verdict.missing:
        print("%d tests of the baseline fail and are not excused:" % len(verdict.missing))
        print_failures(outcomes, verdict.missing)
    if verdict.leaving:
        print("%d lines must leave exceptions.tsv, their tests pass:" % len(verdict.leaving))
        for file, name in verdict.leaving:
            print("  %s\t%s" % (file, name))
    for kind, data in sorted(verdict.data.items()):
        print("data files on %s: %d of %d tests pass, %d are excused (%.2f %%)" % (
            "a node in cluster mode" if kind else "a server of its own", data["passed"], data["run"], data["excused"],
            100.0 * data["excused"] / data["run"]))
    for reason, count in verdict.data_reasons.most_common():
        print("  %3d  %s" % (count, reason))
    total = sum(sum(names.values()) for names in files.values())
    print("upstream: %d of %d tests of the baseline pass in %d files; %d fail and are excused by name, "
          "%d are in the %d files excused as a whole%s"
          % (verdict.passed, total, len(outcomes), verdict.excused, verdict.whole_tests,
             sum(1 for file in files if file in exceptions.whole), " (not run)" if excused_files else ""))


def main():
    options = parse_arguments()
    command, binary = server_words(options.server)
    kinds = ["cluster:"] if options.cluster_mode else ["own:"] if options.own_server else ["", "own:", "cluster:"]
    files, exceptions = baseline(kinds), Exceptions()
    exceptions.bind(files)
    if is_redis(command):
        exceptions = Exceptions(os.devnull)
    names, excused_files = chosen(options, files, exceptions)
    checks = ["--ignore-digest"] + (["--ignore-encoding"] if options.ignore_encoding else [])
    shutil.rmtree(LOGS, ignore_errors=True)
    suite, outcomes, started = suite_directory(), {}, time.monotonic()
    try:
        runner = Runner(suite, command, binary, checks, LOGS)
        with ThreadPoolExecutor(options.jobs) as pool:
            skips = [[] if options.all else exceptions.hanging(file) for file in names]
            for file, outcome in zip(names, pool.map(runner.run, names, skips)):
                outcomes[file] = outcome
                expected = sum(files.get(file, outcome.passed).values())
                got = sum((outcome.passed & files.get(file, outcome.passed)).values())
                print("%-34s %4d of %4d  %5.1f s%s%s" % (
                    file, got, expected, outcome.seconds, "  hangs: %d" % len(outcome.hung) if outcome.hung else "",
                    "  ended early: %s" % outcome.aborted.splitlines()[0][:160] if outcome.aborted and not outcome.hung else ""),
                    flush=True)
    finally:
        shutil.rmtree(suite, ignore_errors=True)
    passed = {file: outcome.passed for file, outcome in outcomes.items()}
    if options.write_baseline:
        write_baseline(kinds[-1], passed)
    verdict = Verdict(files, exceptions, passed)
    if options.write_exceptions:
        write_draft(os.path.join(LOGS, "exceptions.draft.tsv"), files, outcomes, exceptions, verdict)
    if options.verbose:
        for file, outcome in outcomes.items():
            print_failures(outcomes, [(file, name) for name in outcome.failed])
    report(files, outcomes, exceptions, verdict, excused_files)
    if options.prune:
        prune(verdict.leaving)
        verdict.leaving = []
    unknown = [] if options.only else exceptions.unknown(files) if not (options.own_server or options.cluster_mode) else []
    for file, name in unknown:
        print("exceptions.tsv excuses what the baseline does not know: %s\t%s" % (file, name))
    print("%.0f s" % (time.monotonic() - started))
    return 1 if verdict.missing or verdict.leaving or unknown else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SourceError, ListError) as problem:
        sys.exit(str(problem))
