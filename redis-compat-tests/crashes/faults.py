"""Rounds with a disk that fails and forgets: faulty_disk.c is loaded into the server, disk.py knows what was synced.

In each round writes, syncs, openings and renamings fail at rates of their own, or nothing does; then the process is killed,
while they fail or when the server serves again. Mostly it is the machine that goes down: any part of what was not synced is
lost. The log is made shorter all the time. The next start finds what is left, at times on a disk that still fails: then it
may refuse to start, and say that it was the disk. With appendfsync always, whatever fails:

  every acknowledged write is there, and every one that a reader has seen; nothing that was refused is there, nor what was
  not sent; a list is in order, a transaction whole; what was answered by INDOUBT is there when a later write of the same
  client was acknowledged; the server serves again when the disk does; it starts on everything that a crash leaves.
"""
import collections
import os
import random
import shutil
import signal
import tempfile
import threading
import time

from harness.preload import library
from harness.process import Server, free_port
from harness.wire import Closed, Connection
from crashes.disk import Disk
from crashes.load import LIST_LENGTH, PIPELINE, READERS, STEP_REPLIES, WRITERS, Reader, look, settle, step

HERE = os.path.dirname(os.path.abspath(__file__))
# Where the replies of a step have something to say: SET, INCR, RPUSH, EXEC.
REPLIES = {0: "s", 1: "c", 2: "l", 7: "t"}
TRIMMED = 8
REFUSED = (b"-MISCONF", b"-EXECABORT")
# A server whose disk has been mended tries it again each second.
SERVES_AGAIN_SECONDS = 20
REWRITE_SECONDS = 0.05
# Longer than replies wait for a disk.
LONG_SECONDS = 12


class Plan:
    """What happens in a round: nothing but the generator decides it."""

    def __init__(self, generator, long_share):
        kinds = generator.choice(((), ("SYNC",), ("WRITE",), ("NAME",), ("SYNC", "WRITE"), ("SYNC", "WRITE", "NAME")))
        self.rates = {kind: generator.choice((1, 2, 3) if kind == "NAME" else (1, 2, 5, 20, 100)) for kind in kinds}
        self.seed = generator.randrange(1 << 32)
        # A disk that has failed is tried again each second: at times it still fails then.
        self.before, self.failing, self.after = (generator.uniform(0.03, most) for most in (0.2, generator.choice((0.5, 1.2, 3.5)), 0.2))
        self.serves_again = generator.random() < 0.5
        self.is_power_lost = generator.random() < 0.75
        self.starts_failing = bool(kinds) and generator.random() < 0.3
        self.is_long = generator.random() < long_share
        if self.is_long:
            self.rates, self.failing, self.serves_again = {"SYNC": 1, "WRITE": 1}, LONG_SECONDS, True

    def environment(self):
        rates = {"FAULTY_DISK_" + kind: str(self.rates.get(kind, 0)) for kind in ("SYNC", "WRITE", "NAME")}
        return dict(rates, FAULTY_DISK_SEED=str(self.seed))

    def __str__(self):
        fails = " ".join("%s 1/%d" % (kind.lower(), rate) for kind, rate in self.rates.items()) or "nothing"
        return "%s fails, %s, %s" % (
            fails, "serves again" if self.serves_again else "killed meanwhile", "power lost" if self.is_power_lost else "process killed")


class Writer(threading.Thread):
    """Writes ever greater numbers, and remembers what became of each."""

    def __init__(self, number, port, start):
        super().__init__(daemon=True)
        self.number, self.port, self.start_value = number, port, start
        self.sent = self.answered = start
        self.done = {kind: [] for kind in "sclt"}
        self.refused = {kind: set() for kind in "sclt"}
        self.doubtful = []
        self.answers = self.doubts = 0
        self.error = None

    def run(self):
        try:
            connection = Connection(self.port)
            while not self.error:
                first, request = self.sent + 1, b""
                for _ in range(PIPELINE):
                    self.sent += 1
                    request += step(self.number, self.sent)
                connection.send(request)
                replies = connection.receive(PIPELINE * STEP_REPLIES)
                refused = sum([self.hear(first + at // STEP_REPLIES, at % STEP_REPLIES, reply) for at, reply in enumerate(replies)])
                self.answered = self.sent
                if refused:
                    time.sleep(0.01)
        except (Closed, OSError):
            pass

    def hear(self, value, place, reply):
        """One reply to a step. Whether it refuses."""
        kind = REPLIES.get(place)
        if not reply.startswith(b"-"):
            self.answers += 1
            if kind:
                # What one client did before is in front of it in the log.
                for earlier, number in self.doubtful:
                    self.done[earlier].append(number)
                self.doubtful.clear()
                self.done[kind].append(value)
            if kind == "t" and b"\r\n-" in reply:
                self.error = reply
            return False
        if reply.startswith(REFUSED):
            if kind:
                self.refused[kind].add(value)
            return True
        if reply.startswith(b"-INDOUBT") and (kind or place == TRIMMED):
            self.doubts += 1
            if kind:
                self.doubtful.append((kind, value))
        # A list that is short enough is only read.
        elif not (reply.startswith(b"-UNKEPT") and place == TRIMMED):
            self.error = reply
        return False


class Rewriter(threading.Thread):
    """Has the log made shorter again and again: it may be refused, and fail."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port

    def run(self):
        try:
            connection = Connection(self.port)
            while True:
                connection.call("BGREWRITEAOF")
                time.sleep(REWRITE_SECONDS)
        except (Closed, OSError):
            pass


def check(writer, values, seen):
    """What is wrong with a writer's keys."""
    wrong, w, start = [], writer.number, writer.start_value
    done, refused = writer.done, writer.refused
    listed = values["l"]
    last = {"s": values["s"], "l": listed[-1] if listed else 0, "t": values["t1"]}
    for kind, value in last.items():
        least = max(done[kind][-1:] + [start] + ([seen] if kind == "s" else []))
        if not least <= value <= writer.sent:
            wrong.append("%s of %d has %d, and %d was kept, %d sent" % (kind, w, value, least, writer.sent))
        if value in refused[kind]:
            wrong.append("%s of %d has %d, which was refused" % (kind, w, value))
    count = values["c"] - start - len(done["c"])
    doubtful = sum(kind == "c" for kind, _ in writer.doubtful) + writer.sent - writer.answered
    if not 0 <= count <= doubtful:
        wrong.append("c of %d has %d more than the %d that were acknowledged, and %d are in doubt" % (w, count, len(done["c"]), doubtful))
    if not values["t1"] == values["t2"] == values["t3"]:
        wrong.append("a transaction of %d is there in part: %s" % (w, values))
    if any(one >= next for one, next in zip(listed, listed[1:])):
        wrong.append("the list of %d is not in order: %s" % (w, listed))
    missing = {number for number in done["l"] if listed and number >= listed[0]} - set(listed)
    if missing or set(listed) & refused["l"]:
        wrong.append("the list of %d lacks %s, has %s, which were refused" % (w, sorted(missing)[:9], sorted(set(listed) & refused["l"])[:9]))
    if len(listed) < min(LIST_LENGTH, len(done["l"]) + 1):
        wrong.append("the list of %d has %d elements, and %d were acknowledged" % (w, len(listed), len(done["l"])))
    # Where nothing was refused, what is there is a beginning of what was sent.
    if not any(refused.values()) and not values["s"] >= values["c"] >= last["l"] >= values["t1"] >= values["s"] - 1:
        wrong.append("what is there of %d is no beginning of what it sent: %s" % (w, values))
    if writer.error:
        wrong.append("an error: %r" % writer.error)
    return wrong


def eventually(condition, what):
    """Seconds until the condition holds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > SERVES_AGAIN_SECONDS:
            raise RuntimeError("not within %d s: %s" % (SERVES_AGAIN_SECONDS, what))
        time.sleep(0.02)
    return time.monotonic() - started


class Rounds:
    """A server on a disk that fails, and what was seen of both."""

    def __init__(self, binary, place, preload, generator, count, ports):
        self.generator, self.count = generator, count
        # A few rounds have no time for that.
        self.long_share = 0.03 if count >= 20 else 0
        self.switch, record = os.path.join(place, "failing"), os.path.join(place, "record")
        self.found = os.path.join(place, "found")
        directory = os.path.join(place, "server")
        os.mkdir(directory)
        open(record, "wb").close()
        log = os.path.join(directory, "appendonlydir")
        self.disk = Disk(log, record, random.Random(generator.randrange(1 << 32)))
        self.plan = Plan(generator, self.long_share)
        environment = {"LD_PRELOAD": preload, "FAULTY_DISK_DIRECTORY": log, "FAULTY_DISK_RECORD": record, "FAULTY_DISK_WHILE": self.switch}
        extra = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.server = Server(binary, extra, port=free_port(*ports), directory=directory, environment=dict(environment, **self.plan.environment()))
        self.seen = collections.Counter()
        self.served_again = 0

    def fail(self, is_failing):
        if is_failing:
            open(self.switch, "w").close()
        elif os.path.exists(self.switch):
            os.remove(self.switch)

    def ready(self):
        self.server.wait_ready(probe=b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", good=(b"$-1",))

    def run(self):
        """All rounds; what was wrong."""
        self.ready()
        for number in range(self.count):
            plan, wrong = self.plan, []
            try:
                writers, readers = self.load()
                self.end(plan.is_power_lost)
                self.plan = Plan(self.generator, self.long_share)
                self.start()
                for writer in writers:
                    wrong += check(writer, look(self.server.port, writer.number), max(reader.seen[writer.number] for reader in readers))
            except RuntimeError as error:
                wrong.append(str(error))
            self.seen["rounds"] += 1
            if wrong:
                print(self.server.log_tail())
                return ["round %d (%s): %s" % (number, plan, text) for text in wrong]
        return self.finish()

    def load(self):
        """The load of a round, up to the moment of its end."""
        port, plan = self.server.port, self.plan
        starts = []
        for w in range(WRITERS):
            values = look(port, w)
            starts.append(max(values["s"], values["c"], values["t1"], *(values["l"][-1:])) + 1)
            # A disk that failed at the start may have to be tried again first.
            eventually(lambda: settle(port, w, starts[w]), "writes after a start on a disk that fails no more")
        writers = [Writer(w, port, starts[w]) for w in range(WRITERS)]
        readers = [Reader(port) for _ in range(READERS)]
        threads = writers + readers + [Rewriter(port)]
        for thread in threads:
            thread.start()
        time.sleep(plan.before)
        self.fail(bool(plan.rates))
        time.sleep(plan.failing if plan.rates else plan.after)
        if plan.serves_again:
            self.fail(False)
            done = [len(writer.done["s"]) for writer in writers]
            again = eventually(
                lambda: all(len(writer.done["s"]) > was or not writer.is_alive() for writer, was in zip(writers, done)),
                "acknowledged writes after the disk failed no more")
            self.served_again = max(self.served_again, again)
            self.seen["served again"] += bool(plan.rates)
            time.sleep(plan.after)
        if not self.server.alive():
            raise RuntimeError("the server has ended with %s" % self.server.process.returncode)
        self.server.send_signal(signal.SIGKILL)
        self.server.process.wait(30)
        self.fail(False)
        for thread in threads:
            thread.join(40)
        for writer in writers:
            self.seen["answers"] += writer.answers
            self.seen["refused"] += sum(len(values) for values in writer.refused.values())
            self.seen["doubts"] += writer.doubts
        return writers, readers

    def end(self, is_power_lost):
        """The process has ended, and perhaps the machine."""
        self.disk.read()
        self.disk.end(is_power_lost)
        self.seen["power losses"] += is_power_lost
        shutil.rmtree(self.found, ignore_errors=True)
        shutil.copytree(self.disk.directory, self.found)

    def start(self):
        """The next start. Where the disk fails then, it may be the second that succeeds."""
        server = self.server
        server.environment.update(self.plan.environment())
        log_bytes = os.path.getsize(server.log_path)
        self.fail(self.plan.starts_failing)
        server.start()
        try:
            self.ready()
        except RuntimeError:
            with open(server.log_path, "rb") as log:
                said = log.read()[log_bytes:]
            if server.alive() or not self.plan.starts_failing or server.process.returncode < 0 or b"(os error " not in said:
                raise
            self.seen["refused starts"] += 1
            self.fail(False)
            self.end(self.plan.is_power_lost)
            server.start()
            self.ready()
        self.fail(False)

    def finish(self):
        """What the record has missed, if anything, and whether the server has panicked."""
        ended = self.server.end()
        self.disk.read()
        wrong = ["the record of %s is not what was done" % name for name in self.disk.differences()]
        wrong += [] if ended else ["the server did not end by SIGTERM"]
        with open(self.server.log_path, errors="replace") as log:
            text = log.read()
        self.seen["rewritings"], self.seen["torn tails"] = text.count("was made shorter"), text.count("torn tail")
        return wrong + (["a panic: see the log"] if "panicked" in text else [])


def fault_rounds(binary, count, generator, ports):
    """Runs so many rounds; returns what was wrong."""
    place = tempfile.mkdtemp(prefix="compat-crashes-")
    preload = library(os.path.join(HERE, "faulty_disk.c"), place)
    if not preload:
        print("no rounds with a disk that fails")
        return []
    rounds = Rounds(binary, place, preload, generator, count, ports)
    try:
        wrong = rounds.run()
    finally:
        rounds.server.close()
    seen, disk = rounds.seen, rounds.disk
    print("faults   SIGKILL %4d rounds, %d replies without an error, %d writes refused, %d replies in doubt, %d rewritings, %d torn tails" % (
        seen["rounds"], seen["answers"], seen["refused"], seen["doubts"], seen["rewritings"], seen["torn tails"]))
    print("         made to fail: %s" % ", ".join("%d %s" % (number, name) for name, number in sorted(disk.faults.items())))
    print("         power lost %d times, and %d bytes that were not synced; %d starts refused; served again %d times, in %.2f s at most" % (
        seen["power losses"], disk.lost_bytes, seen["refused starts"], seen["served again"], rounds.served_again), flush=True)
    if wrong:
        print("what the last start has found, and the log: %s" % place)
    else:
        shutil.rmtree(place)
    return wrong
