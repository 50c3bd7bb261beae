"""A rolling restart under load: every node ends (SIGTERM) and starts again, one after the other, and no client sees an error."""
import signal
import threading
import time

import redis

from harness.process import free_port
from harness.wire import Closed, Connection
from restarts.nodes import END_SECONDS, JOIN_SECONDS, Restartable

NODES = 5
CLUSTER_CLIENTS, PLAIN_CLIENTS, KEYS_PER_CLIENT = 2, 2, 300
PAUSE_SECONDS = 0.001
AROUND_SECONDS = 1
PLAIN_TIMEOUT_SECONDS = 30


class Worker(threading.Thread):
    """Sets ever greater numbers on keys of its own and reads them back. `execute` is the client's."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.keys = ["roll%d:%d" % (number, at) for at in range(KEYS_PER_CLIENT)]
        self.values, self.is_over, self.failures, self.commands, self.longest = {}, threading.Event(), [], 0, 0.0

    def run(self):
        number = 0
        while not self.is_over.is_set():
            number += 1
            key = self.keys[number % len(self.keys)]
            value = b"%d" % number
            if self.ask("SET", key, value) in (b"OK", True):
                self.values[key] = value
            read = self.ask("GET", key)
            if read != self.values.get(key):
                self.failures.append("GET %s is %r, and %r was acknowledged" % (key, read, self.values.get(key)))
            self.is_over.wait(PAUSE_SECONDS)

    def ask(self, *words):
        began = time.monotonic()
        try:
            return self.execute(*words)
        except (redis.RedisError, RuntimeError, Closed, OSError) as error:
            self.failures.append("%s after %.2f s: %s: %s" % (words, time.monotonic() - began, type(error).__name__, error))
            return None
        finally:
            self.commands += 1
            self.longest = max(self.longest, time.monotonic() - began)


class ClusterWorker(Worker):
    """Over a cluster client with its own retries, as it comes."""

    def __init__(self, number, nodes):
        super().__init__(number)
        startup = [redis.cluster.ClusterNode("127.0.0.1", node.port) for node in nodes]
        self.client = redis.RedisCluster(startup_nodes=startup)

    def execute(self, *words):
        return self.client.execute_command(*words)


class PlainWorker(Worker):
    """Over a connection to the proxy listener of a node, which retries nothing. `use` says of which one from the next request on."""

    def __init__(self, number, port):
        super().__init__(number)
        self.port, self.connection, self.connected = port, None, None

    def execute(self, *words):
        if self.connected != self.port:
            wanted = self.port
            self.connection = Connection(wanted, PLAIN_TIMEOUT_SECONDS)
            self.connected = wanted
        reply = self.connection.call(*words)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def use(self, port):
        self.port = port
        until = time.monotonic() + PLAIN_TIMEOUT_SECONDS
        while self.connected != port and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)


class Proxies(Restartable):
    """Five nodes, each with a proxy listener."""

    def __init__(self, options):
        self.proxies = {number: free_port(10000, *options.ports) for number in range(1, NODES + 1)}
        super().__init__(options, "no", NODES, lambda number: ["--proxy-port", str(self.proxies[number])])


def rolling(cluster, _random, problems):
    """SIGTERM of one node after the other, each started again when it has ended, and the next when the cluster is whole."""
    proxies, workers = cluster.proxies, []
    try:
        plain = [PlainWorker(CLUSTER_CLIENTS + number, proxies[1]) for number in range(PLAIN_CLIENTS)]
        for worker in [ClusterWorker(number, cluster.nodes) for number in range(CLUSTER_CLIENTS)] + plain:
            worker.start()
            workers.append(worker)
        time.sleep(AROUND_SECONDS)
        took = []
        for node, other in zip(cluster.nodes, cluster.nodes[1:] + cluster.nodes[:1]):
            for worker in plain:
                worker.use(proxies[other.number])
            began = time.monotonic()
            node.server.send_signal(signal.SIGTERM)
            code = node.server.process.wait(2 * END_SECONDS)
            if code:
                problems.append("node %d ended with %d" % (node.number, code))
            ended = time.monotonic() - began
            cluster.start([node])
            cluster.wait_whole()
            took.append((ended, time.monotonic() - began - ended))
        time.sleep(AROUND_SECONDS)
    finally:
        problems += [failure for worker in workers for failure in stopped(worker)]
    problems += lost(proxies[1], workers)
    problems += cluster.problems()
    longest = ["%.2f s" % max(worker.longest for worker in workers if isinstance(worker, kind)) for kind in (ClusterWorker, PlainWorker)]
    return "%d nodes, each ended after %.1f s and whole again after %.1f s at most; %d commands, %d failed; longest wait: cluster client %s, proxy %s" % (
        NODES, max(ended for ended, _ in took), max(whole for _, whole in took), sum(worker.commands for worker in workers),
        sum(len(worker.failures) for worker in workers), *longest)


def stopped(worker):
    """What failed for it."""
    worker.is_over.set()
    worker.join(JOIN_SECONDS)
    return worker.failures + ["a client has not ended"] * worker.is_alive()


def lost(port, workers):
    """Keys that have not the value that was acknowledged last."""
    connection, wrong = Connection(port), []
    for worker in workers:
        for key, value in worker.values.items():
            found = connection.call("GET", key)
            if found != value:
                wrong.append("%s is %r, and %r was acknowledged last" % (key, found, value))
    connection.close()
    return wrong
