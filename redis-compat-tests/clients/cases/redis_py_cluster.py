"""redis-py's cluster client against the nodes in ADDRESSES.

`MODE=cases` runs each function once for RESP2 and RESP3. `MODE=work` says `working`, reads and writes until the
standard input ends, while the caller moves slots, and then reads back all that was acknowledged.
"""
import os
import sys
import threading
import time

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import MovedError

NODES = [ClusterNode(*address.split(":")) for address in os.environ["ADDRESSES"].split(",")]
THREADS = 3
# How many copies every slot has besides its primary.
COPIES = int(os.environ.get("COPIES", 0))
LIMIT_SECONDS = 30


def connect(protocol=2):
    return RedisCluster(startup_nodes=NODES, protocol=protocol)


def topology(client):
    nodes = client.get_primaries()
    assert sorted(node.port for node in nodes) == sorted(int(node.port) for node in NODES), nodes
    assert {client.get_node_from_key("key:%d" % i).port for i in range(1000)} == {node.port for node in nodes}
    assert client.cluster_info(target_nodes=nodes[0])["cluster_state"] == "ok"
    assert client.cluster_keyslot("{user}a") == client.cluster_keyslot("{user}b") == client.keyslot("user")


def strings(client):
    for i in range(500):
        assert client.set("pc:s:%d" % i, b"v\x00%d" % i)
    assert [client.get("pc:s:%d" % i) for i in range(500)] == [b"v\x00%d" % i for i in range(500)]
    assert client.mset_nonatomic({"pc:m:%d" % i: i for i in range(100)})
    assert client.mget_nonatomic(["pc:m:%d" % i for i in range(100)]) == [b"%d" % i for i in range(100)]
    assert client.delete(*["pc:m:%d" % i for i in range(100)]) == 100
    assert client.mset({"{pc}a": 1, "{pc}b": 2}) and client.mget("{pc}a", "{pc}none", "{pc}b") == [b"1", None, b"2"]


def pipelines(client):
    pipe = client.pipeline(transaction=False)
    for i in range(1000):
        pipe.set("pc:p:%d" % i, i).get("pc:p:%d" % i)
    assert pipe.execute()[1::2] == [b"%d" % i for i in range(1000)]


def transactions(client):
    client.delete("{pc:t}a", "{pc:t}b")
    with client.pipeline(transaction=True) as pipe:
        assert pipe.incr("{pc:t}a").rpush("{pc:t}b", "x").execute() == [1, 1]
        pipe.watch("{pc:t}a")
        assert pipe.get("{pc:t}a") == b"1"
        pipe.multi()
        assert pipe.incr("{pc:t}a").execute() == [2]


def scan(client):
    for i in range(1000):
        client.set("pc:scan:%d" % i, i)
    found = list(client.scan_iter("pc:scan:*", count=100))
    assert len(found) == len(set(found)) == 1000
    assert client.dbsize(target_nodes=RedisCluster.PRIMARIES) >= 1000


def collections(client):
    client.delete("pc:l", "pc:h", "pc:set", "pc:z")
    assert client.rpush("pc:l", "a", "b") == 2 and client.lrange("pc:l", 0, -1) == [b"a", b"b"]
    assert client.hset("pc:h", mapping={"f": 1, "g": 2}) == 2 and client.hgetall("pc:h") == {b"f": b"1", b"g": b"2"}
    assert client.sadd("pc:set", "m") == 1 and client.zadd("pc:z", {"m": 1.5}) == 1 and client.zscore("pc:z", "m") == 1.5


def stale_table(client):
    """A client whose table is wrong for every slot is led to the owner by MOVED."""
    nodes = client.get_primaries()
    table = client.nodes_manager.slots_cache
    for slot in list(table):
        other = nodes[(nodes.index(table[slot][0]) + 1) % len(nodes)]
        table[slot] = [other]
    for i in range(50):
        assert client.set("pc:stale:%d" % i, i) and client.get("pc:stale:%d" % i) == b"%d" % i


def until(what, is_so):
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < LIMIT_SECONDS, what
        time.sleep(0.01)


def copies(client):
    """All nodes answer who says READONLY: the same in the end, no transaction by half, and no writes."""
    if not COPIES:
        return
    one, other = "{pc:c}one", "{pc:c}other"
    nodes = [Redis(node.host, node.port, single_connection_client=True) for node in client.get_primaries()]
    assert client.mset({one: 0, other: 0})
    for node in nodes:
        assert node.readonly()
        until("a node has no copy", lambda: is_answered(node, one))
    last, problems = 400, []

    def write():
        for turn in range(1, last + 1):
            if turn % 2:
                client.mset({one: turn, other: turn})
            else:
                client.pipeline(transaction=True).set(one, turn).set(other, turn).execute()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        for node in nodes:
            seen = node.mget(one, other)
            if seen[0] != seen[1]:
                problems.append(seen)
    writer.join()
    assert not problems, problems[0]
    for node in nodes:
        until("a copy does not catch up", lambda: node.mget(one, other) == [b"%d" % last] * 2)
    refused = 0
    for node in nodes:
        try:
            node.set(one, last)
        except MovedError:
            refused += 1
    assert refused == COPIES, "%d nodes send writes elsewhere" % refused
    reader = RedisCluster(startup_nodes=NODES, read_from_replicas=True)
    before, rounds = [gets(node) for node in nodes], 30
    for _ in range(rounds * len(nodes)):
        assert reader.get(one) == b"%d" % last
    counts = [gets(node) - count for node, count in zip(nodes, before)]
    assert min(counts) >= rounds // 2, "reads are not spread: %s" % counts
    assert nodes[0].readwrite()


def is_answered(node, key):
    try:
        return node.get(key) is not None
    except MovedError:
        return False


def gets(node):
    return node.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]


def errors(client):
    client.set("pc:w", "text")
    for attempt in (lambda: client.incr("pc:w"), lambda: client.lpush("pc:w", 1), lambda: client.mget("pc:a", "pc:b", "pc:c")):
        try:
            attempt()
        except Exception:
            continue
        raise AssertionError("no error")


def work(client, number, stop, counts, problems):
    """Counters, strings and hashes of this thread, whose every reply is known beforehand."""
    try:
        turn = 0
        while not stop.is_set():
            turn += 1
            key = "pc:work:%d:%d" % (number, turn % 200)
            value = counts.get(key, 0) + 1
            counts[key] = value
            got = client.incr(key)
            assert got == value, "INCR %s: %r, not %d" % (key, got, value)
            assert client.hset("{%s}h" % key, "f", value) == int(value == 1)
            got = client.get(key)
            assert got == b"%d" % value, "GET %s: %r, not %d" % (key, got, value)
            if turn % 10 == 0:
                pipe = client.pipeline(transaction=False)
                for i in range(20):
                    pipe.set("pc:pipe:%d:%d" % (number, i), turn)
                assert all(pipe.execute())
            time.sleep(0.001)
    except Exception as error:
        problems.append("%s: %s" % (type(error).__name__, error))


def run_work():
    client, stop, counts, problems = connect(), threading.Event(), [{} for _ in range(THREADS)], []
    threads = [threading.Thread(target=work, args=(client, i, stop, counts[i], problems)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    print("working", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    for problem in problems:
        report("work while slots move", problem)
    total = 0
    for count in counts:
        for key, value in count.items():
            total += value
            got = client.get(key), client.hget("{%s}h" % key, "f")
            if got != (b"%d" % value, b"%d" % value):
                problems.append(key)
                report("what was acknowledged is there", "%s is %r, not %d" % (key, got, value))
                break
    if not problems:
        report("work while slots move", None if total > 100 else "only %d" % total)


def report(name, problem=None):
    print("not ok %s # %s" % (name, str(problem).replace("\n", " ")) if problem else "ok %s" % name, flush=True)


def run_cases():
    for protocol in (2, 3):
        for case in (topology, strings, pipelines, transactions, scan, collections, stale_table, copies, errors):
            try:
                case(connect(protocol))
                report("%s, RESP%d" % (case.__name__, protocol))
            except Exception as error:
                report("%s, RESP%d" % (case.__name__, protocol), "%s: %r" % (type(error).__name__, error))


run_work() if os.environ["MODE"] == "work" else run_cases()
print("done")
