"""A cluster whose nodes end and start again: on their directories, on empty ones, at other ports."""
import os
import shutil
import signal
import time

from failover.run import Client, Cluster, Writer
from harness.process import free_port
from harness.routing import slot_of
from leases.nodes import SLOTS, wait_for

REPLICAS = 2
WRITERS = 3
# Between the writes of a writer: a light load, so that a busy machine shows restarts and not itself.
PAUSE_SECONDS = 0.001
PROBES = 64
END_SECONDS, JOIN_SECONDS = 30, 40
# With `appendfsync everysec` a crash may take what was written within this time; copies are behind for less.
UNSETTLED_SECONDS = {"yes": 2, "no": 1, "fsync": 0}
# Keys that are there besides those of the load, a few in every slot.
KEYS_PER_WRITE = 1000


class Restartable(Cluster):
    """Nodes of which every slot is on three. `log`: whether they keep one ("yes", synced each second), or not ("no"), or acknowledge
    what two have synced ("fsync")."""

    def __init__(self, options, log, count=3, extra=lambda _number: []):
        self.log, self.ports, self.binary, self.first = log, options.ports, options.server, 0
        self.common = ["--appendonly", "no" if log == "no" else "yes", "--appendfsync", "everysec"]
        acknowledge = "quorum+fsync" if log == "fsync" else "async"
        super().__init__(options.server, count, REPLICAS, acknowledge, lambda number: self.common + extra(number), options.ports)
        try:
            self.fill(options.keys)
        except BaseException:
            self.close()
            raise

    def fill(self, keys):
        """Writes so many keys, by the proxy of a node."""
        connection = self.nodes[0].connect()
        try:
            connection.call("CLIENT", "ROUTING", "PROXY")
            for first in range(0, keys, KEYS_PER_WRITE):
                words = [word for number in range(first, min(first + KEYS_PER_WRITE, keys)) for word in ("filled:%d" % number, "x" * 64)]
                # Roles are shared out meanwhile: what is asked to try again was not executed.
                self.wait_for(lambda: connection.call("MSET", *words) == b"OK", "MSET to be executed")
        finally:
            connection.close()

    def sent(self):
        """What all nodes have sent to copies so far: (slots that were alike, slots whose entries were sent, bytes)."""
        infos = [node.info() for node in self.nodes]
        return tuple(sum(int(info["starling_copies_" + name]) for info in infos) for name in ("alike", "sent", "bytes"))

    def others(self, node):
        return [other for other in self.nodes if other is not node]

    def load(self):
        """Writers whose numbers are greater than all before."""
        self.first += 10_000_000
        return Load(self.nodes, self.first)

    def end(self, nodes, number):
        """Sends the signal to all of them, and waits until they have ended; their exit codes."""
        for node in nodes:
            node.server.send_signal(number)
        return [node.server.process.wait(END_SECONDS) for node in nodes]

    def start(self, nodes):
        for node in nodes:
            node.server.start()
        for node in nodes:
            node.server.wait_ready()

    def move(self, node):
        """A node that has ended gets another port. Its files are in a folder that is named after the port."""
        server, former = node.server, node.port
        server.port = free_port(10000, *self.ports)
        server.places["port"] = str(server.port)
        os.rename(os.path.join(server.directory, "node-%d" % former), os.path.join(server.directory, "node-%d" % server.port))

    def join_by(self, node, other):
        """From its next start on a node looks for the cluster at the address of the other, and creates none."""
        node.server.extra = ["--join", other.address, *self.common]

    def wipe(self, node):
        """Removes everything that a node which has ended had on disk."""
        for name in os.listdir(node.server.directory):
            path = os.path.join(node.server.directory, name)
            if name != "server.log":
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def wait_for(self, condition, what):
        return wait_for(condition, what, self.nodes, 120)

    def wait_served(self):
        """Until all nodes say that every slot is served; seconds."""
        return self.wait_for(
            lambda: all(node.info()["cluster_slots_ok"] == str(SLOTS) for node in self.nodes), "all slots to be served")

    def keys(self):
        """Keys at the primaries, by the proxy of a node: it asks all owners."""
        connection = self.nodes[0].connect()
        try:
            reply = connection.call("CLIENT", "ROUTING", "PROXY")
            if reply != b"OK":
                raise RuntimeError("CLIENT ROUTING is answered %s" % reply)
            return connection.call("DBSIZE")
        finally:
            connection.close()

    def unserved(self):
        """Of keys in slots everywhere, those that cannot be written, read and deleted."""
        client, wrong = Client([node.port for node in self.nodes]), []
        try:
            for key in keys_everywhere(PROBES):
                replies = [client.call(key, *words) for words in (("SET", key, "x"), ("GET", key), ("DEL", key))]
                if replies != [b"OK", b"x", 1]:
                    wrong.append("%s in slot %d is answered %s" % (key, slot_of(key), replies))
        finally:
            client.close()
        return wrong

    def problems(self):
        """What is wrong with a cluster that is whole: slots that are stuck, copies that differ."""
        different = self.different()
        return self.unserved() + ["%d copies differ from their primaries" % different] * bool(different)


class Load:
    """Writers, and what they were told."""

    def __init__(self, nodes, first):
        self.writers = [Writer(number, [node.port for node in nodes], first, PAUSE_SECONDS) for number in range(WRITERS)]
        for writer in self.writers:
            writer.start()

    def written(self):
        return sum(writer.written for writer in self.writers)

    def wait_until_all_keys_are_written(self):
        """Each key at least once."""
        while not all(all(writer.history.values()) for writer in self.writers):
            if not all(writer.is_alive() for writer in self.writers):
                raise RuntimeError("a writer ended: %s" % [writer.error for writer in self.writers])
            time.sleep(PAUSE_SECONDS)

    def stop(self, at_once=False):
        """What went wrong with them. At once: what has no answer gets none."""
        for writer in self.writers:
            writer.is_over = True
            writer.client.is_over = at_once
        for writer in self.writers:
            writer.join(JOIN_SECONDS)
        return ["a writer: %s" % (writer.error or "it has not ended") for writer in self.writers if writer.error or writer.is_alive()]

    def look(self, nodes, settled_until, problems):
        """How many acknowledged writes are gone. What was acknowledged until then has to be there, or something later."""
        client, behind = Client([node.port for node in nodes]), 0
        try:
            for writer in self.writers:
                for key, history in writer.history.items():
                    value = int(client.call(key, "GET", key) or 0)
                    behind += sum(number > value for _at, number in history)
                    settled = [number for at, number in history if at < settled_until]
                    if settled and value < settled[-1]:
                        problems.append("%s has %d, and %d was acknowledged and has to be there" % (key, value, settled[-1]))
                    if value > writer.next:
                        problems.append("%s has %d, which was never sent" % (key, value))
        finally:
            client.close()
        return behind


def keys_everywhere(count):
    """Names in as many equal parts of all slots."""
    found, at = {}, 0
    while len(found) < count:
        key = "probe:%d" % at
        found.setdefault(slot_of(key) * count // SLOTS, key)
        at += 1
    return list(found.values())


def kill(cluster, nodes):
    """kill -9; the moment before which everything was acknowledged that has to be there again."""
    moment = time.monotonic()
    cluster.end(nodes, signal.SIGKILL)
    return moment - UNSETTLED_SECONDS[cluster.log]


def pause(node):
    """The node stands still; the moment before which everything was acknowledged that has to be there again."""
    moment = time.monotonic()
    node.server.send_signal(signal.SIGSTOP)
    return moment - UNSETTLED_SECONDS["no"]
