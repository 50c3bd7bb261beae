"""Load with an oracle: worker processes that know what every reply must be, and what must be there in the end.

Each worker is one cluster client of its own with keys of its own, so that every reply can be foretold: INCR gives the
next number, APPEND the next length, a read the last value that was acknowledged. All workers also count in a few
shared keys, whose sums are compared afterwards. Requests are timed; the samples are cut into phases by the parent.
"""
import array
import multiprocessing
import os
import random
import time
import traceback
from collections import Counter

from harness.routing import Routed, slot_of
from moves.model import Entry, normal, read_command

SHARED = 16
OWN_KEYS = 400
TAGS = 40
LIST_MAX = 60
# A pause after each request keeps the load from measuring its own hunger for the CPU.
PAUSE_SECONDS = 0.0003
PROBLEMS_MAX = 20


class Wrong(Exception):
    """A reply that differs from what was foretold."""


class Worker:
    """The state of one worker process: its client, its model and its samples."""

    def __init__(self, number, ports, seed, model, readable):
        self.number, self.client = number, Routed(ports)
        self.random = random.Random("%s/%d" % (seed, number))
        # {key: Entry} of this worker's keys, and keys of the data set that nobody changes.
        self.model, self.readable = model, readable
        self.sorted_keys = [(key, entry.kind) for key, entry in sorted(model.items()) if key.startswith(b"big:")]
        self.shared = Counter()
        self.starts, self.times = array.array("d"), array.array("d")
        self.problems, self.requests = [], Counter()
        self.actions = [self.increment, self.increment, self.shared_increment, self.write, self.read, self.read, self.read_data, self.append, self.push,
                        self.transaction, self.watched, self.many, self.pipeline, self.collection, self.remove]

    def key(self, kind):
        return b"w%d:%b:%d" % (self.number, kind, self.random.randrange(OWN_KEYS))

    def tag(self, name):
        return b"w%d:{t%d-%d}:%b" % (self.number, self.number, self.random.randrange(TAGS), name)

    def old(self, key, empty):
        return self.model[key].value if key in self.model else empty

    def keep(self, kind, key, value):
        if value or kind == "string":
            self.model[key] = Entry(kind, value, None)
        else:
            self.model.pop(key, None)

    def expect(self, what, key, got, wanted):
        if got != wanted:
            raise Wrong("%s %s: the reply is %.200r, not %.200r" % (what, key.decode(), got, wanted))

    def increment(self):
        key = self.key(b"counter")
        value = int(self.old(key, b"0")) + 1
        # Noted first: a request that was not acknowledged fails the run anyway.
        self.keep("string", key, b"%d" % value)
        self.expect("INCR", key, self.client.call("INCR", key), value)

    def shared_increment(self):
        key = b"shared:%d" % self.random.randrange(SHARED)
        got = self.client.call("INCR", key)
        if not isinstance(got, int):
            raise Wrong("INCR %s: %r" % (key.decode(), got))
        self.shared[key] += 1

    def write(self):
        key, value = self.key(b"text"), b"%x" % self.random.getrandbits(8 * self.random.choice((4, 40, 400)))
        self.keep("string", key, value)
        self.expect("SET", key, self.client.call("SET", key, value), b"OK")

    def read(self):
        key = self.key(self.random.choice((b"text", b"counter", b"log")))
        self.expect("GET", key, self.client.call("GET", key), self.old(key, None))

    def read_data(self):
        key, entry = self.random.choice(self.readable)
        self.expect("reading", key, normal(entry.kind, self.client.call(*read_command(key, entry.kind))), entry.value)

    def append(self):
        key, more = self.key(b"log"), b"%d;" % self.random.randrange(1000)
        value = self.old(key, b"") + more
        self.keep("string", key, value)
        self.expect("APPEND", key, self.client.call("APPEND", key, more), len(value))

    def push(self):
        key = self.key(b"queue")
        value = self.old(key, [])
        if len(value) > LIST_MAX:
            self.keep("list", key, value[1:])
            self.expect("LPOP", key, self.client.call("LPOP", key), value[0])
        else:
            item = b"%d" % self.random.randrange(1 << 30)
            self.keep("list", key, [item] + value)
            self.expect("LPUSH", key, self.client.call("LPUSH", key, item), len(value) + 1)

    def transaction(self):
        """Two counters of one slot that must never differ, and a list beside them."""
        first = self.tag(b"a")
        second, third = first[:-1] + b"b", first[:-1] + b"l"
        value, items = int(self.old(first, b"0")) + 1, self.old(third, [])
        item = b"%d" % value
        self.keep("string", first, item)
        self.keep("string", second, item)
        self.keep("list", third, ([item] + items)[:LIST_MAX])
        commands = [("INCR", first), ("INCR", second), ("LPUSH", third, item)]
        wanted = [value, value, len(items) + 1]
        if len(items) >= LIST_MAX:
            commands.append(("RPOP", third))
            wanted.append(items[-1])
        self.expect("EXEC", first, self.client.transaction(first, commands, self.random.random() < 0.5), wanted)

    def watched(self):
        """Check and set. A slot that moves may break the WATCH, which says that nothing was executed."""
        key = self.tag(b"watched")
        before = self.old(key, None)
        value = b"%d" % (int(before or b"0") + 7)

        def attempt(connection):
            for command in (("WATCH", key), ("GET", key), ("MULTI",), ("SET", key, value)):
                reply = connection.call(*command)
                if isinstance(reply, Exception):
                    connection.call("DISCARD" if command[0] == "SET" else "UNWATCH")
                    return reply
                if command[0] == "GET":
                    self.expect("GET", key, reply, before)
            return connection.call("EXEC")

        for _ in range(100):
            reply = self.client.route(key, attempt)
            if reply is not None:
                break
            self.client.seen["broken WATCH"] += 1
        self.keep("string", key, value)
        self.expect("EXEC", key, reply, [b"OK"])

    def many(self):
        """Several keys of one slot in one command."""
        base = self.tag(b"m")
        keys = [base + b"%d" % i for i in range(4)]
        self.expect("MGET", base, self.client.call("MGET", *keys), [self.old(key, None) for key in keys])
        values = [b"%d" % self.random.randrange(1 << 30) for _ in keys]
        for key, value in zip(keys, values):
            self.keep("string", key, value)
        self.expect("MSET", base, self.client.call("MSET", *[word for pair in zip(keys, values) for word in pair]), b"OK")

    def pipeline(self):
        """Requests that lie in one buffer of a node when a slot leaves."""
        commands, wanted = [], []
        for key in {self.key(b"counter") for _ in range(self.random.choice((4, 16, 64)))}:
            value = int(self.old(key, b"0")) + 1
            self.keep("string", key, b"%d" % value)
            commands.append(("INCR", key))
            wanted.append(value)
        replies = self.client.pipeline(commands)
        for command, reply, value in zip(commands, replies, wanted):
            self.expect("pipelined INCR", command[1], reply, value)

    def collection(self):
        """Writes into the big collections of the data set that are this worker's."""
        key, kind = self.random.choice(self.sorted_keys)
        value, item = self.model[key].value, b"%x" % self.random.getrandbits(60)
        if kind == "hash":
            value[item] = b"new"
            self.expect("HSET", key, self.client.call("HSET", key, item, b"new"), 1)
        elif kind == "list":
            value.append(item)
            self.expect("RPUSH", key, self.client.call("RPUSH", key, item), len(value))
        elif kind == "set":
            gone = next(iter(value))
            value.remove(gone)
            value.add(item)
            self.expect("SADD", key, self.client.call("SADD", key, item), 1)
            self.expect("SREM", key, self.client.call("SREM", key, gone), 1)
        elif kind == "zset":
            value[item] = float(len(value))
            self.expect("ZADD", key, self.client.call("ZADD", key, len(value) - 1, item), 1)
        else:
            place = self.random.randrange(len(value) - len(item))
            self.keep(kind, key, value[:place] + item + value[place + len(item):])
            self.expect("SETRANGE", key, self.client.call("SETRANGE", key, place, item), len(value))

    def remove(self):
        key = self.key(b"text")
        there = key in self.model
        self.model.pop(key, None)
        self.expect("DEL", key, self.client.call("DEL", key), int(there))

    def run(self, stop):
        while not stop.is_set() and len(self.problems) < PROBLEMS_MAX:
            action = self.random.choice(self.actions)
            started = time.perf_counter()
            try:
                action()
            except Wrong as wrong:
                self.problems.append(str(wrong))
            except Exception:
                self.problems.append(traceback.format_exc(limit=3))
                break
            self.starts.append(started)
            self.times.append(time.perf_counter() - started)
            self.requests[action.__name__] += 1
            time.sleep(PAUSE_SECONDS)


class Load:
    """Workers on a cluster. `model` has what is there already; `stop` brings it up to date."""

    def __init__(self, ports, workers, seed, model):
        self.model, self.context = model, multiprocessing.get_context("fork")
        self.stopping = self.context.Event()
        readable = [item for item in model.items() if item[0].startswith(b"data:") and not item[1].deadline]
        self.owned = [{key: entry for key, entry in model.items() if self.owner(key, workers) == number} for number in range(workers)]
        self.processes = []
        for number in range(workers):
            here, there = self.context.Pipe(duplex=False)
            process = self.context.Process(target=self.work, args=(there, number, ports, seed, readable), daemon=True)
            process.start()
            there.close()
            self.processes.append((process, here))

    @staticmethod
    def owner(key, workers):
        """The worker that may change a key: its own ones, and its part of the big collections."""
        if key.startswith(b"w"):
            return int(key[1:key.index(b":")]) % workers
        return slot_of(key) % workers if key.startswith(b"big:") else None

    def work(self, pipe, number, ports, seed, readable):
        try:
            worker = Worker(number, ports, seed, self.owned[number], readable)
            worker.run(self.stopping)
            client = worker.client
            pipe.send((worker.model, worker.shared, worker.problems, client.seen, client.hops, worker.requests, worker.starts, worker.times))
        except Exception:
            pipe.send(traceback.format_exc())
        pipe.close()
        os._exit(0)

    def stop(self):
        """End the workers; what they saw, and the model as they left it."""
        self.stopping.set()
        result = Result()
        for number, (process, pipe) in enumerate(self.processes):
            try:
                answer = pipe.recv() if pipe.poll(120) else "worker %d does not end" % number
            except EOFError:
                answer = "worker %d died" % number
            process.join(5)
            if isinstance(answer, str):
                result.problems.append(answer)
                continue
            model, shared, problems, seen, hops, requests, starts, times = answer
            for key in self.owned[number]:
                self.model.pop(key, None)
            self.model.update(model)
            for key, count in shared.items():
                before = int(self.model[key].value) if key in self.model else 0
                self.model[key] = Entry("string", b"%d" % (before + count), None)
            result.problems += problems
            result.seen.update(seen)
            result.requests.update(requests)
            result.hops = max(result.hops, hops)
            result.starts.extend(starts)
            result.times.extend(times)
        return result


class Result:
    """What all workers saw."""

    def __init__(self):
        self.problems, self.seen, self.requests, self.hops = [], Counter(), Counter(), 0
        self.starts, self.times = array.array("d"), array.array("d")

    def latency(self, first, last):
        """Figures of the requests that began between two readings of `time.perf_counter`."""
        times = sorted(time for start, time in zip(self.starts, self.times) if first <= start < last)
        if not times:
            return "no requests"
        figures = [1000 * times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99, 0.999)]
        return "%7d requests, %5.0f/s, ms: p50 %.2f  p99 %.2f  p99.9 %.2f  max %.1f" % (
            len(times), len(times) / (last - first), *figures, 1000 * times[-1])
