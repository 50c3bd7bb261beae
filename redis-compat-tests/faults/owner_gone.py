"""A node is killed: what the others say of its slots, to a proxy's clients and to cluster clients that start then.

Run last: the cluster is not whole afterwards.
"""
import os
import signal
import subprocess

from clients.prepare import node_modules, python_environment
from faults.places import NODES, eventually
from harness.topology import call

SPREAD = [("DBSIZE",), ("KEYS", "*"), ("FLUSHALL",)]
# Each is told of one living node, finds a key of it, writes it and reads it back.
REDIS_PY = """
import sys
from redis.cluster import RedisCluster
client = RedisCluster(host="127.0.0.1", port=int(sys.argv[1]))
key = next(name for name in ("key-%d" % number for number in range(1000)) if client.get_node_from_key(name).port == int(sys.argv[1]))
assert client.set(key, "v") and client.get(key) == b"v"
"""
# ioredis may ask the dead node first, and begins again then. A key of the dead node
# must end in an error, not in a wait without end; others go on.
IOREDIS = """
const { createRequire } = require('node:module');
const assert = require('node:assert');
const { Cluster } = createRequire(process.env.NODE_FOLDER + '/')('ioredis');
const slotOf = createRequire(process.env.NODE_FOLDER + '/')('cluster-key-slot');
const [own, dead] = process.argv.slice(1).map(Number);
(async () => {
  const client = new Cluster([{ host: '127.0.0.1', port: own }]);
  client.on('error', () => {});
  const slots = await client.cluster('SLOTS');
  const keyOf = (port) => {
    const isOwn = (slot) => slots.some(([first, last, node]) => first <= slot && slot <= last && node[1] === port);
    for (let number = 0; ; number++) if (isOwn(slotOf('key-' + number))) return 'key-' + number;
  };
  const key = keyOf(own);
  assert.equal(await client.set(key, 'v'), 'OK');
  assert.equal(await client.get(key), 'v');
  await assert.rejects(client.get(keyOf(dead)), /CLUSTERDOWN|ECONNREFUSED|Connection is closed|Failed to refresh|Too many Cluster/);
  assert.equal(await client.get(key), 'v');
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
"""


def answers_of_a_part(proxy):
    """Commands about all keys are refused while the slots of the dead node are served by nobody."""
    connection = proxy.connect_here()
    try:
        answers = [(words[0], connection.call(*words)) for words in SPREAD]
        wrong = ["%s: %r" % answer for answer in answers if not str(answer[1]).startswith("CLUSTERDOWN")]
        return "; ".join(wrong) or None
    finally:
        connection.close()


def slots_stay(port, dead):
    """CLUSTER SLOTS and NODES name the dead node for its slots, and NODES that it has failed."""
    slots = {node[1] for _first, _last, node, *_copies in call(port, "CLUSTER", "SLOTS")}
    line = next((line for line in call(port, "CLUSTER", "NODES").splitlines() if b":%d@" % dead in line), b"")
    good = dead in slots and b"fail" in line and len(line.split()) > 8
    return None if good else "CLUSTER SLOTS names %s, CLUSTER NODES says %r" % (sorted(slots), line)


def redis_py_starts(port):
    return starts([python_environment(), "-c", REDIS_PY, str(port)])


def ioredis_starts(port, dead):
    return starts(["node", "-e", IOREDIS, str(port), str(dead)], NODE_FOLDER=node_modules())


def starts(words, **environment):
    done = subprocess.run(words, env=dict(os.environ, **environment), capture_output=True, text=True, timeout=60)
    return done.stderr[-300:] if done.returncode else None


def run(places, check):
    proxy = places.tested[2]
    victim = places.cluster.servers[NODES - 1]
    victim.end(signal.SIGKILL)
    failed = b"cluster_slots_fail:0\r"
    check("cluster", "the death is noticed", lambda: eventually(lambda: failed not in call(proxy.server.port, "CLUSTER", "INFO"), "slots that failed"))
    check("cluster", "the slots stay with their last owner", lambda: slots_stay(proxy.server.port, victim.port))
    check("proxy", "the living part is not the answer", lambda: answers_of_a_part(proxy))
    check("cluster", "a new redis-py cluster client starts", lambda: redis_py_starts(proxy.server.port))
    check("cluster", "a new ioredis cluster client starts", lambda: ioredis_starts(proxy.server.port, victim.port))
