#!/usr/bin/env python3
"""Sends malformed requests, and checks that each gets replies or a protocol error and a close, and harms nobody.

  run.py                          10,000 inputs against target/release/starling
  run.py --inputs 100000          the long form
  run.py --seed 17 --index 4711   one input again
  run.py --target redis           redis-server against itself: checks this suite

Every input goes over a connection of its own. Checked: what comes back are whole replies, nothing follows a protocol
error, the server closes after one and when we close; for one input in ten also that the replies and the closing are
those of redis-server, byte for byte. Meanwhile another connection's PING must be answered, and the server's
resident memory may never have grown by more than 64 MB. A last part does the same with a password set and not given.
"""
import argparse
import os
import random
import sys
import threading
import time
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
from exchange import Conversation, converse  # noqa: E402
from harness.process import WORK, Server  # noqa: E402
from harness.wire import Connection, NotResp, reply_end  # noqa: E402
from inputs import Inputs  # noqa: E402

MEMORY_GROWTH_MAX = 64 << 20
PING_SECONDS_MAX = 2.0
PROTOCOL_ERROR = b"-ERR Protocol error"


class Watch(threading.Thread):
    """Sends PING every 20 ms on a connection of its own; keeps the slowest answer and the peak of memory."""

    def __init__(self, server, password=None):
        super().__init__(daemon=True)
        self.server, self.slowest, self.peak, self.problem, self.stop = server, 0.0, 0, None, threading.Event()
        self.connection = Connection(server.port)
        if password:
            self.connection.call("AUTH", password)
        self.start()

    def run(self):
        try:
            while not self.stop.wait(0.02):
                before = time.monotonic()
                if self.connection.call("PING") != b"PONG":
                    self.problem = "PING was not answered with PONG"
                self.slowest = max(self.slowest, time.monotonic() - before)
                self.peak = max(self.peak, self.server.memory())
        except Exception as error:  # whatever happened, the run must say so
            self.problem = self.problem or "the control connection failed: %r" % error


class Campaign:
    """One server beside its reference, and the failures found."""

    def __init__(self, target, reference, inputs, sample):
        self.target, self.reference, self.inputs, self.sample = target, reference, inputs, sample
        self.endings, self.errors, self.kinds, self.failures, self.compared = Counter(), Counter(), Counter(), [], 0

    def run(self, indices):
        """Every input to the target; the sampled ones to the reference first, whose behaviour is then expected."""
        indices = list(indices)
        expected = {}
        sampled = [index for index in indices if index % self.sample == 0]
        for conversation in converse(self.conversations(sampled, self.reference, expected=None)):
            expected[conversation.context[0]] = conversation
        for conversation in converse(self.conversations(indices, self.target, expected)):
            self.check(conversation, expected.get(conversation.context[0]))

    def conversations(self, indices, server, expected):
        for index in indices:
            kind, data = self.inputs.draw(index)
            wanted = expected.get(index) if expected else None
            if expected is None:
                yield Conversation(server.port, data, finish=False, context=(index, kind))
            else:
                must_close = wanted is not None and wanted.ending == "closed"
                yield Conversation(server.port, data, finish=not must_close, patient=must_close, context=(index, kind))

    def check(self, conversation, expected):
        index, kind = conversation.context
        self.endings[conversation.ending] += 1
        self.kinds[kind] += 1
        problem = None
        if conversation.ending == "stuck":
            problem = "neither answered nor closed in time"
        elif conversation.ending == "closed":
            problem = self.check_replies(conversation.received)
        if problem is None and expected is not None and "reset" not in (conversation.ending, expected.ending):
            self.compared += 1
            if conversation.received != expected.received:
                problem = "redis-server answers %r" % bytes(expected.received[-300:])
        if problem:
            self.failures.append((index, kind, problem, conversation))

    def check_replies(self, received):
        """What is wrong with the replies to one input, or None."""
        start = 0
        while start < len(received):
            try:
                end = reply_end(received, start)
            except NotResp as error:
                return str(error)
            if end < 0:
                return "an unfinished reply"
            if received.startswith(PROTOCOL_ERROR, start):
                self.errors[bytes(received[start:end]).decode("latin-1").strip()[:60]] += 1
                return None if end == len(received) else "replies after a protocol error"
            start = end
        return None


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--index", type=int, help="this input only")
    parser.add_argument("--sample", type=int, default=10, help="compare one input in so many with redis-server")
    parser.add_argument("--target", default="starling", help="a short name or a command line with {port} and {dir}")
    return parser.parse_args()


def part(options, seed, name, count, extra, password=None):
    """One server, one set of inputs; True when all is well."""
    with Server("redis", extra) as reference, Server(options.target, extra) as target:
        reference.wait_ready()
        target.wait_ready()
        campaign = Campaign(target, reference, Inputs(seed), 1 if options.index is not None else options.sample)
        campaign.run(range(200) if options.index is None else ())  # first allocations are not growth
        campaign = Campaign(target, reference, campaign.inputs, campaign.sample)
        before, watch, started = target.memory(), Watch(target, password), time.monotonic()
        campaign.run(range(count) if options.index is None else [options.index])
        seconds = time.monotonic() - started
        watch.stop.set()
        watch.join(30)
        problems = [watch.problem] if watch.problem else []
        if not target.alive():
            problems.append("the server ended:\n" + target.log_tail())
        elif max(watch.peak, target.memory()) - before > MEMORY_GROWTH_MAX:
            problems.append("memory grew by %.1f MB" % ((watch.peak - before) / 1e6))
        if watch.slowest > PING_SECONDS_MAX:
            problems.append("PING took %.2f s" % watch.slowest)
        print("malformed, %s: %d inputs of %d kinds in %.1f s, seed %d; %d compared; endings %s; memory %+.1f MB (peak %+.1f); "
              "slowest PING %.0f ms" % (name, sum(campaign.endings.values()), len(campaign.kinds), seconds, seed, campaign.compared,
                                        dict(campaign.endings), ((target.memory() - before) if target.alive() else 0) / 1e6,
                                        (watch.peak - before) / 1e6, watch.slowest * 1e3))
        for text, number in campaign.errors.most_common(12):
            print("  %6d x %s" % (number, text))
        show(seed, campaign.failures, problems)
        return not campaign.failures and not problems


def show(seed, failures, problems):
    os.makedirs(WORK, exist_ok=True)
    for index, kind, problem, conversation in failures[:10]:
        path = os.path.join(WORK, "malformed-%d-%d.bin" % (seed, index))
        with open(path, "wb") as file:
            file.write(conversation.data)
        print("FAIL seed %d index %d (%s): %s" % (seed, index, kind, problem))
        print("    sent     %d bytes: %r" % (len(conversation.data), bytes(conversation.data[:200])))
        print("    received %r, then %s" % (bytes(conversation.received[-300:]), conversation.ending))
    if len(failures) > 10:
        print("and %d more" % (len(failures) - 10))
    for problem in problems:
        print("FAIL seed %d: %s" % (seed, problem))


def main():
    options = parse_arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000_000)
    good = part(options, seed, "open", options.inputs, [])
    good &= part(options, seed, "password", max(1, options.inputs // 10), ["--requirepass", "secret"], "secret")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
