#!/usr/bin/env python3
"""Processes that stand still (SIGSTOP) while slots move, and go on later: no key may be lost, no slot left alone.

  pauses.py                          both shows: three trials of the first, each pause of the second once
  pauses.py --only join --trials 30  the first show at length
  pauses.py --only leave --trials 12 each pause of the second three times
  pauses.py --seed 7 --first 4 --trials 1   the fifth trial of a run with that seed again

join: a fourth node joins three voters that hold all keys. Up to 2.2 s after its first move has begun, which takes about two,
two of the voters stand still for 12 s, longer than any proposal waits for its answer, and go on. A disk whose fsync takes
150 ms (slow_disk.c, where there is a C compiler) makes the time between proposing and agreeing long enough to be hit.

leave: one of three nodes is told to end (SIGTERM) and stands still for 9 s a little later, so that the others believe it to
be down before it goes on. It must end with 0, after its slots and keys are with the others.

After each trial the cluster must be whole, and each key on exactly one node, the owner of its slot, with its value. The seed
is printed; it decides who stands still and when, not what the machine does with it.
"""
import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness.preload import library  # noqa: E402
from harness.process import Server, free_port, starling  # noqa: E402
from harness.routing import Routed  # noqa: E402
from harness.topology import Cluster, call, primaries  # noqa: E402
from moves import model as data  # noqa: E402

JOIN_STILL_SECONDS, LEAVE_STILL_SECONDS = 12, 9
JOIN_PAUSE_MAX = 2.2
LEAVE_PAUSES = (0.05, 0.15, 0.5, 2)
FSYNC_MS = 150
# A whole trial, and the end of a node that leaves: it waits for what the others believe of it.
TRIAL_SECONDS, END_SECONDS = 120, 60
LOOK_SECONDS = 0.3
# How long the disk stays slow after those who stood still go on.
SLOW_ON_SECONDS = 3
PROBLEMS_SHOWN = 10
LOG_BYTES = 3000
LOG_BYTES_MAX = 1 << 24
# What the newcomer's log says of its moves; a step that was proposed and has no answer is what the first show is about.
MOVE_BEGUN, CALLED_OFF = "kind=MoveBegun", "kind=MoveAborted"
NO_OUTCOME = "a step has no outcome yet"


class OutOfTime(BaseException):
    """A trial that takes too long; not an Exception, so that nothing on the way takes it for a node that is just starting."""


class Nodes(Cluster):
    """Three nodes on ports of a range, each with what the options add to its environment."""

    def __init__(self, options):
        self.ports_low, self.ports_high = options.ports
        self.environment = options.environment
        super().__init__(options.server_cmd)

    def settled(self):
        # The nodes have better things to do than to be asked, where the machine is small.
        time.sleep(LOOK_SECONDS)
        return super().settled()

    def start(self, *extra, ready=True):
        port = free_port(low=self.ports_low, high=self.ports_high)
        server = Server(self.command, extra, port=port, environment=self.environment)
        try:
            if ready:
                server.wait_ready()
        except BaseException:
            server.close()
            raise
        return server


def info(port):
    """The fields of CLUSTER INFO."""
    text = call(port, "CLUSTER", "INFO").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def stand_still(servers, seconds):
    for server in servers:
        server.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for server in servers:
        server.send_signal(signal.SIGCONT)


def missing(ports, model):
    """Read every key: how many are lost, and what is wrong besides."""
    client, lost, problems, items = Routed(ports), 0, [], list(model.items())
    for start in range(0, len(items), data.BATCH):
        batch = items[start:start + data.BATCH]
        for (key, entry), value in zip(batch, client.pipeline([("GET", key) for key, _entry in batch])):
            lost += value is None
            if value is not None and value != entry.value:
                problems.append("%s is %.80r" % (key.decode(), value))
    client.close()
    return lost, problems


def examine(cluster, model):
    """Wait until the cluster is whole, and look for all keys: (how many are lost, problems, seconds waited)."""
    started, problems = time.monotonic(), []
    try:
        cluster.wait_settled()
    except RuntimeError as error:
        problems.append(str(error))
    waited = time.monotonic() - started
    lost, wrong = missing(cluster.ports, model)
    problems += ["%d keys are lost" % lost] * bool(lost) + wrong
    _lines, misplaced = data.placement(cluster.ports, model)
    return lost, problems + misplaced, waited


def join(cluster, model, number, options, generator):
    """A trial of the first show: (keys lost, problems, a line about it)."""
    voters, pause = list(cluster.servers), generator.uniform(0, JOIN_PAUSE_MAX)
    led_by = info(voters[0].port).get("starling_raft_leader", "")
    leader = next((server for server in voters if call(server.port, "CLUSTER", "MYID").decode() == led_by), None)
    if leader is None:
        raise RuntimeError("CLUSTER INFO names no raft leader: %r" % led_by)
    # Whoever leads goes on alone in one trial, and stands still with another voter in the next.
    others = [server for server in voters if server is not leader]
    generator.shuffle(others)
    still = [leader, others[0]] if number % 2 else others
    watched = next(server for server in voters if server not in still)
    newcomer = cluster.start("--join", cluster.addresses[0], "--loglevel", "debug", ready=False)
    cluster.servers.append(newcomer)
    cluster.wait_for(lambda: MOVE_BEGUN in newcomer.log_tail(LOG_BYTES_MAX), "a move to the newcomer")
    time.sleep(pause)
    before = primaries(watched.port).get(newcomer.port, 0)
    stand_still(still, JOIN_STILL_SECONDS)
    # What was proposed before is agreed, or given up, while the disk is still slow; the rest need not take its time.
    time.sleep(SLOW_ON_SECONDS)
    set_slow(options, False)
    lost, problems, waited = examine(cluster, model)
    log = newcomer.log_tail(LOG_BYTES_MAX)
    return lost, problems, "%s stand still %.2f s after a move began, with %4d slots moved; %2d steps without outcome, " \
        "%d moves called off; whole %4.1f s later" % (
            "leader and voter" if number % 2 else "both followers", pause, before, log.count(NO_OUTCOME), log.count(CALLED_OFF), waited)


def leave(cluster, model, number, _options, _generator):
    """A trial of the second show: (keys lost, problems, a line about it)."""
    pause = LEAVE_PAUSES[number % len(LEAVE_PAUSES)]
    # The first created the cluster and leads; each pause meets each of them in the end.
    index = (number // len(LEAVE_PAUSES) + number) % len(cluster.servers)
    leaving, problems = cluster.servers.pop(index), []
    try:
        before = call(leaving.port, "DBSIZE")
        leaving.send_signal(signal.SIGTERM)
        time.sleep(pause)
        was_alive = leaving.alive()
        stand_still([leaving], LEAVE_STILL_SECONDS)
        started = time.monotonic()
        try:
            code = leaving.process.wait(END_SECONDS)
            if code:
                problems.append("it ended with %d" % code)
        except subprocess.TimeoutExpired:
            problems.append("it has not ended after %d s" % END_SECONDS)
        ended = time.monotonic() - started
        lost, wrong, waited = examine(cluster, model)
        problems += wrong
        if problems:
            print("-- log of %d, which leaves, its end\n%s" % (leaving.port, leaving.log_tail(LOG_BYTES)))
    finally:
        leaving.close()
    return lost, problems, "node %d of 3 with %d keys %s %.2f s after SIGTERM; ends %4.1f s later, whole after %3.1f s" % (
        index + 1, before, "stands still" if was_alive else "had ended", pause, ended, waited)


SHOWS = {"join": join, "leave": leave}


def out_of_time(*_):
    raise OutOfTime()


def trial(name, number, options):
    """One trial with a cluster of its own: (keys lost, problems)."""
    generator = random.Random("%d/%s/%d" % (options.seed, name, number))
    model = {b"key:%d" % index: data.Entry("string", b"value of %d" % index, None) for index in range(options.keys)}
    cluster, problems, started, lost, line = None, [], time.monotonic(), 0, "no outcome"
    signal.alarm(TRIAL_SECONDS)
    set_slow(options, False)
    try:
        cluster = Nodes(options)
        data.fill(cluster.ports, model)
        set_slow(options, True)
        lost, problems, line = SHOWS[name](cluster, model, number, options, generator)
    except OutOfTime:
        problems = ["the trial takes longer than %d s" % TRIAL_SECONDS]
    except Exception as error:  # a node that cannot be asked is a finding too
        problems = ["%s: %s" % (type(error).__name__, error)]
    finally:
        signal.alarm(0)
        if cluster:
            if problems:
                for server in cluster.servers:
                    print("-- log of %d, its end\n%s" % (server.port, server.log_tail(LOG_BYTES)))
            cluster.close()
    print("%s %2d: %s: %s, %.0f s" % (name, number + 1, "FAIL" if problems else "good", line, time.monotonic() - started), flush=True)
    for problem, count in list(collections.Counter(problems).items())[:PROBLEMS_SHOWN]:
        print("    FAIL %s%s" % (problem, " (%d times)" % count if count > 1 else ""), flush=True)
    return lost, problems


def slow_disk(directory):
    """The environment of a server whose fsync takes FSYNC_MS; empty, and said, where it cannot be made."""
    path = library(os.path.join(HERE, "slow_disk.c"), directory)
    if not path:
        print("the disk is as fast as it is")
        return {}
    return {"LD_PRELOAD": path, "SLOW_DISK_MS": str(FSYNC_MS), "SLOW_DISK_WHILE": os.path.join(directory, "slow")}


def set_slow(options, slow):
    """Make the disk slow from now on, or as it is."""
    path = options.environment.get("SLOW_DISK_WHILE")
    if path and slow:
        open(path, "w").close()
    elif path and os.path.exists(path):
        os.remove(path)


def port_range(text):
    low, high = map(int, text.split("-"))
    return low, high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-cmd", default="starling", help="a short name or a command line with {port} and {dir}")
    parser.add_argument("--server", help="path of a starling binary")
    parser.add_argument("--only", choices=sorted(SHOWS), help="one of the shows")
    parser.add_argument("--trials", type=int, help="trials of each show; three of join and four of leave by default")
    parser.add_argument("--first", type=int, default=0, help="trials that are passed over")
    parser.add_argument("--keys", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--disk", choices=("slow", "fast"), help="slow for join and fast for leave by default")
    parser.add_argument("--ports", type=port_range, default=(11000, 45000), help="LOW-HIGH: client ports; 10000 more are used too")
    options = parser.parse_args()
    if options.server:
        options.server_cmd = starling(options.server)
    signal.signal(signal.SIGALRM, out_of_time)
    # Processes that stand still are ended however this one is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    red = 0
    with tempfile.TemporaryDirectory(prefix="compat-disk-") as directory:
        for name in [options.only] if options.only else list(SHOWS):
            started, lost, failed = time.monotonic(), 0, 0
            trials = options.trials or {"join": 3, "leave": len(LEAVE_PAUSES)}[name]
            is_slow = (options.disk or {"join": "slow", "leave": "fast"}[name]) == "slow"
            options.environment = slow_disk(directory) if is_slow else {}
            print("pauses: %s: seed %d, %d trials, %d keys, fsync %s" % (
                name, options.seed, trials, options.keys, "%d ms" % FSYNC_MS if options.environment else "as it is"), flush=True)
            for number in range(options.first, options.first + trials):
                gone, problems = trial(name, number, options)
                lost, failed = lost + gone, failed + bool(problems)
            print("pauses: %s: %s: %d trials, %d failed, %d keys lost, %.0f s" % (
                name, "FAIL" if failed else "PASS", trials, failed, lost, time.monotonic() - started), flush=True)
            red += failed
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
