"""What applications do every day, with redis-py: against one node, a cluster, and a plain client on a proxy listener.

MODE is `cluster` for the cluster client, anything else for the plain one; addresses come from ADDRESSES. Keys that are used
together have a common hash tag, as an application for a cluster writes them.
"""
import hashlib
import os
import threading
import time
import uuid

import redis
from redis.cluster import ClusterNode, RedisCluster

ADDRESSES = [address.split(":") for address in os.environ["ADDRESSES"].split(",")]


def connect(protocol):
    if os.environ["MODE"] == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*address) for address in ADDRESSES], protocol=protocol)
    host, port = ADDRESSES[0]
    return redis.Redis(host, int(port), protocol=protocol)


def rate_limiter(client, tag):
    """A fixed window, and a sliding one over a sorted set: 5 of 8 requests pass."""
    passed = 0
    for _ in range(8):
        with client.pipeline(transaction=True) as pipe:
            count, _set = pipe.incr(tag + "window").expire(tag + "window", 60, nx=True).execute()
        passed += count <= 5
    assert passed == 5 and 0 < client.ttl(tag + "window") <= 60
    passed = 0
    for number in range(8):
        now = 1000.0 + number
        with client.pipeline(transaction=True) as pipe:
            pipe.zremrangebyscore(tag + "sliding", "-inf", now - 5).zadd(tag + "sliding", {"request:%d" % number: now})
            passed += pipe.zcard(tag + "sliding").expire(tag + "sliding", 60).execute()[2] <= 5
    assert passed == 8, "three old ones have left the window by the time"


def queue(client, tag):
    """A reliable queue: what a worker takes is in its own list until it is done."""
    todo, doing = tag + "todo", tag + "doing"
    done = []

    def work():
        while True:
            job = client.blmove(todo, doing, 5, "LEFT", "RIGHT")
            if job in (None, b"end"):
                return
            done.append(job)
            assert client.lrem(doing, 1, job) == 1

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for number in range(60):
        client.rpush(todo, "job:%d" % number)
    client.rpush(todo, *["end"] * 3)
    for worker in workers:
        worker.join()
    assert sorted(done) == sorted(b"job:%d" % number for number in range(60))
    assert client.lrange(doing, 0, -1) == [b"end"] * 3 and not client.exists(todo)


def leaderboard(client, tag):
    board = tag + "board"
    client.zadd(board, {"player:%03d" % number: number for number in range(200)})
    assert float(client.zincrby(board, 500, "player:007")) == 507
    best = client.zrange(board, 0, 2, desc=True, withscores=True)
    assert [tuple(pair) for pair in best] == [(b"player:007", 507), (b"player:199", 199), (b"player:198", 198)], best
    assert client.zrevrank(board, "player:007") == 0 and client.zcount(board, 100, "(150") == 50
    assert client.zrange(board, 10, 12, byscore=True) == [b"player:010", b"player:011", b"player:012"]
    assert client.zunionstore(tag + "both", {board: 2, tag + "none": 1}) == 200
    assert client.zscore(tag + "both", "player:100") == 200


def stream_group(client, tag):
    """Two consumers share a stream; what one leaves behind is claimed by the other."""
    stream = tag + "events"
    client.xgroup_create(stream, "workers", id="0", mkstream=True)
    ids = [client.xadd(stream, {"number": number}) for number in range(30)]

    def entries(reply):
        """The entries of the one stream, in either protocol."""
        if isinstance(reply, dict):
            return [entry for batch in reply[stream.encode()] for entry in batch]
        return reply[0][1] if reply else []

    left = entries(client.xreadgroup("workers", "lost", {stream: ">"}, count=10))
    done = []
    while len(done) < 20:
        batch = entries(client.xreadgroup("workers", "steady", {stream: ">"}, count=7, block=1000))
        assert client.xack(stream, "workers", *[name for name, _ in batch]) == len(batch)
        done += [name for name, _ in batch]
    assert client.xpending(stream, "workers")["pending"] == len(left) == 10
    claimed = client.xautoclaim(stream, "workers", "steady", min_idle_time=0, start_id="0-0")[1]
    assert client.xack(stream, "workers", *[name for name, _ in claimed]) == 10
    assert sorted(done + [name for name, _ in claimed]) == sorted(ids)
    assert client.xpending(stream, "workers")["pending"] == 0 and client.xtrim(stream, maxlen=5, approximate=False) == 25


def lock(client, tag):
    """A lock with a token: 20 threads add to a counter that only the lock protects."""
    name, counter = tag + "lock", tag + "counter"
    client.set(counter, 0)

    def release(token):
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(name)
            if pipe.get(name) == token:
                pipe.multi()
                pipe.delete(name)
                pipe.execute()

    def work():
        token = uuid.uuid4().hex.encode()
        while not client.set(name, token, nx=True, px=30000):
            time.sleep(0.002)
        client.set(counter, int(client.get(counter)) + 1)
        release(token)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get(counter) == b"20" and not client.exists(name)


def sessions(client, tag):
    session = tag + "session"
    client.hset(session, mapping={"user": "ann", "visits": 1, "cart": "[]"})
    assert client.expire(session, 1800) and client.hincrby(session, "visits", 2) == 3
    assert client.hgetall(session) == {b"user": b"ann", b"visits": b"3", b"cart": b"[]"}
    assert client.hmget(session, "user", "none") == [b"ann", None] and 1790 < client.ttl(session) <= 1800
    assert client.getex(tag + "none") is None and client.hdel(session, "cart") == 1
    assert client.expire(session, 100, lt=True) and not client.expire(session, 200, lt=True)


def bloom(client, tag):
    """A Bloom filter of 2^16 bits: nothing that was added is missing, few others are found."""
    def places(word):
        digest = hashlib.sha256(word.encode()).digest()
        return [int.from_bytes(digest[i:i + 2], "big") for i in range(0, 8, 2)]

    def add(words):
        with client.pipeline(transaction=False) as pipe:
            for word in words:
                for place in places(word):
                    pipe.setbit(tag + "bloom", place, 1)
            pipe.execute()

    def found(word):
        with client.pipeline(transaction=False) as pipe:
            for place in places(word):
                pipe.getbit(tag + "bloom", place)
            return all(pipe.execute())

    add("word:%d" % number for number in range(1000))
    assert all(found("word:%d" % number) for number in range(0, 1000, 25))
    assert sum(found("other:%d" % number) for number in range(100)) < 10
    assert 3000 < client.bitcount(tag + "bloom") <= 4000


def places(client, tag):
    shops = tag + "shops"
    assert client.geoadd(shops, (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania", 2.35, 48.85, "Paris")) == 3
    assert abs(client.geodist(shops, "Palermo", "Catania", unit="km") - 166.2742) < 0.001
    near = client.geosearch(shops, longitude=15, latitude=37, radius=200, unit="km", sort="ASC", withdist=True)
    assert [name for name, _ in near] == [b"Catania", b"Palermo"] and abs(near[0][1] - 56.4413) < 0.001
    assert client.geosearchstore(tag + "near", shops, longitude=15, latitude=37, radius=200, unit="km") == 2


CASES = [rate_limiter, queue, leaderboard, stream_group, lock, sessions, bloom, places]
for protocol in (2, 3):
    for case in CASES:
        try:
            client = connect(protocol)
            tag = "{%s-%d-%s}:" % (case.__name__, protocol, uuid.uuid4().hex[:8])
            case(client, tag)
            print("ok %s, RESP%d" % (case.__name__, protocol), flush=True)
        except Exception as error:
            print("not ok %s, RESP%d # %s: %r" % (case.__name__, protocol, type(error).__name__, error), flush=True)
print("done")
