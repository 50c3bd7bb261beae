"""A process on a copy of the directory of a node that runs: two of one identity. One of them at most may answer."""
import os
import shutil
import signal
import tempfile
import time

from failover.run import Client
from harness.process import Server, free_port, starling
from harness.wire import Connection
from leases.history import History
from leases.load import Load, Numbers, Sender, keys_over_all_slots

KEYS = 30
BEFORE_SECONDS, TOGETHER_SECONDS, LATE_SECONDS = 0.5, 6, 2
LOOK_SECONDS = 0.01
NUMBERS = Numbers()


class Clone:
    """The second process, at a port of its own."""

    def __init__(self, cluster, node):
        self.number = node.number + 100
        port, self.directory = free_port(10000, *cluster.ports), tempfile.mkdtemp(prefix="compat-")
        # As a snapshot of a disk: one moment of all files.
        node.server.send_signal(signal.SIGSTOP)
        try:
            shutil.copytree(node.server.directory, self.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("server.log"))
        finally:
            node.server.send_signal(signal.SIGCONT)
        os.rename(os.path.join(self.directory, "node-%d" % node.port), os.path.join(self.directory, "node-%d" % port))
        extra = ["--join", cluster.others(node)[0].address, *cluster.common]
        self.server = Server(starling(cluster.binary), extra, port=port, directory=self.directory)

    def connect(self):
        return Connection(self.server.port)

    def warnings(self):
        """What its log complains of."""
        lines = self.server.log_tail(1 << 20).splitlines()
        return [line.split(" ", 1)[1].strip() for line in lines if " WARN " in line or " ERROR " in line]

    def close(self):
        self.server.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def cloned(cluster, random, problems):
    """The node goes on, and one of both serves its slots; all that is answered by anybody is what one server could have answered."""
    node, keys = random.choice(cluster.nodes), keys_over_all_slots(KEYS)
    client = Client([node.port for node in cluster.nodes])
    for key in keys:
        client.call(key, "DEL", key)
    client.close()
    history = History(dict.fromkeys(keys))
    load = Load(cluster.nodes, keys, NUMBERS, history, random.random())
    time.sleep(BEFORE_SECONDS)
    clone = Clone(cluster, node)
    try:
        began, opened = time.monotonic(), None
        while time.monotonic() - began < TOGETHER_SECONDS and clone.server.alive():
            if opened is None:
                try:
                    clone.connect().close()
                    sender = Sender(clone, keys, NUMBERS, history, random.random())
                    load.senders.append(sender)
                    sender.start()
                    opened = time.monotonic() - began
                except OSError:
                    pass
            time.sleep(LOOK_SECONDS)
        late = time.monotonic()
        time.sleep(LATE_SECONDS)
        load.stop()
        serving = {number for number in (node.number, clone.number) if answered(history, number, late)}
        if len(serving) != 1:
            problems.append("%d of both serve at the end" % len(serving))
        problems += history.problems()
        said, ended = clone.warnings(), not clone.server.alive()
    finally:
        clone.close()
    if node.number not in serving:
        # Whose identity was taken away: a restart takes it back.
        cluster.end([node], signal.SIGKILL)
        cluster.start([node])
    cluster.wait_whole()
    problems += cluster.problems()
    return "node %d: %s serves; the other %s; it says: %s" % (
        node.number, "the node" if node.number in serving else "its clone" if serving else "nobody",
        "has ended" if ended else "opened its port after %.1f s" % opened if opened is not None else "opened no port",
        " / ".join(dict.fromkeys(said[-3:])) or "nothing")


def answered(history, number, since):
    """How many requests a node has executed since then."""
    operations = [one for known in (history.reads, history.writes) for key in list(known) for one in known[key]]
    return sum(one.node == number and one.sent > since and getattr(one, "outcome", "acknowledged") == "acknowledged" for one in operations)
