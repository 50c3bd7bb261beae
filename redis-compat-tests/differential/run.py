#!/usr/bin/env python3
"""Sends the same generated commands to redis-server and to a target, and compares the replies byte for byte.

  run.py                          50,000 commands against target/release/starling
  run.py --commands 1000000       the long form
  run.py --seed 17 --commands 1   replays one episode, for example one that failed
  run.py --target redis           redis-server against itself: checks this suite
  run.py --reference BIN --only hset,hexpire,...  what came later beside a server that has it

What may differ, and which commands are left out, is listed with reasons in rules.py and nowhere else. The commands
are those that both servers' COMMAND LIST names. Python 3.9 or newer and redis-server; no packages.
"""
import argparse
import os
import random
import sys
import time
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
from grammar import documented  # noqa: E402
from harness.process import Server, redis  # noqa: E402
from harness.wire import Closed, Connection, NotResp  # noqa: E402
from rules import skip_reason  # noqa: E402
from runner import Runner, describe  # noqa: E402
from units import Units  # noqa: E402

EPISODE_COMMANDS = 2000


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=50_000, help="how many to send (rounded up to whole episodes)")
    parser.add_argument("--seed", type=int, help="of the first episode; the next ones count up from it")
    parser.add_argument("--target", default="starling", help="a short name or a command line with {port} and {dir}")
    parser.add_argument("--reference", default="redis-server", help="path of the server that is compared with")
    parser.add_argument("--target-port", type=int, help="a target that runs already (its data is deleted)")
    parser.add_argument("--only", default="", help="these commands alone, separated by commas")
    parser.add_argument("--failures", type=int, default=10, help="stop after as many different failures")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--list", action="store_true", help="print what is covered and what is not, and stop")
    return parser.parse_args()


def shared_commands(reference_port, target_port):
    """The documented commands that both servers list and no rule leaves out; and the names left out, with reasons."""
    reference, target = Connection(reference_port), Connection(target_port)
    docs = documented(reference)
    names = target.call("COMMAND", "LIST")
    if not isinstance(names, list):
        raise SystemExit("the target does not answer COMMAND LIST: %s" % names)
    names = {name.decode().lower() for name in names}
    shared, left_out = {}, {}
    for name, entry in docs.items():
        reason = skip_reason(name) or (None if name in names else "not in the target")
        if reason:
            left_out[name] = reason
        else:
            shared[name] = entry
    for connection in (reference, target):
        connection.close()
    return shared, left_out


def report(seed, units, failure):
    print("FAIL seed %d: %s" % (seed, failure.problem))
    for unit in units:
        for line in describe(unit):
            print("    " + line)
    print("    at        %s" % b" ".join(failure.arguments)[:300])
    print("    reference %s" % repr(failure.reference)[:600])
    print("    target    %s" % repr(failure.target)[:600], flush=True)


def main():
    options = parse_arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000_000)
    servers = [Server(redis(options.reference))]
    try:
        servers[0].wait_ready()
        target_port = options.target_port
        if not target_port:
            servers.append(Server(options.target))
            servers[1].wait_ready()
            target_port = servers[1].port
        commands, left_out = shared_commands(servers[0].port, target_port)
        if options.only:
            wanted = set(options.only.split(","))
            commands = {name: entry for name, entry in commands.items() if name.split("|")[0] in wanted or name in ("keys", "type")}
        print("differential: %d commands shared, %d left out, first seed %d" % (len(commands), len(left_out), seed), flush=True)
        if options.list:
            print("covered: " + " ".join(sorted(commands)))
            for name, reason in sorted(left_out.items()):
                print("left out: %s (%s)" % (name, reason))
            return 0
        return campaign(options, seed, Runner(servers[0].port, target_port, commands), servers[1:])
    finally:
        for server in servers:
            server.close()


def campaign(options, seed, runner, targets):
    """Run episodes until the commands are sent or too many failures are known; the exit code."""
    failures, started, episodes = Counter(), time.monotonic(), 0
    covered = Counter()
    while runner.sent < options.commands and len(failures) < options.failures:
        units = Units(runner.commands, seed + episodes).episode(EPISODE_COMMANDS)
        covered.update(words[0].lower() for unit in units for words in unit.commands if isinstance(words, list))
        failure = None
        try:
            failure = runner.run(units)
        except (Closed, NotResp, OSError) as error:
            print("FAIL seed %d: the connection was lost: %r" % (seed + episodes, error))
            failures["connection"] += 1
        if failure:
            signature = (failure.arguments[0].lower(), failure.problem.split(":")[0])
            if not failures[signature]:
                sent = runner.sent
                report(seed + episodes, *((units[-1:], failure) if options.no_shrink else runner.shrink(units, failure)))
                runner.sent = sent
            failures[signature] += 1
        for server in targets:
            if not server.alive():
                print("the target ended:\n" + server.log_tail())
                return 1
        episodes += 1
    seconds = time.monotonic() - started
    print("differential: %d commands (%d names) in %d episodes, %.1f s; %d failures of %d kinds" % (
        runner.sent, len(covered), episodes, seconds, sum(failures.values()), len(failures)))
    for (signature, count) in failures.most_common():
        print("  %d x %s" % (count, signature if isinstance(signature, str) else "%s: %s" % (signature[0].decode("latin-1"), signature[1])))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
