"""redis-py against one node: each function is a case, given a client; addresses come from ADDRESSES."""
import os
import threading
import time

import redis

HOST, PORT = os.environ["ADDRESSES"].split(",")[0].split(":")


def strings(client):
    assert client.set("py:s", b"v\x00\xff") and client.get("py:s") == b"v\x00\xff"
    assert client.set("py:s", "x", nx=True) is None and client.append("py:s", "abc") == 6
    assert client.set("py:big", b"z" * (1 << 20)) and client.get("py:big") == b"z" * (1 << 20)
    assert client.mset({"py:a": 1, "py:b": 2}) and client.mget("py:a", "py:none", "py:b") == [b"1", None, b"2"]


def expiry(client):
    client.set("py:e", 1, ex=100)
    assert 98 <= client.ttl("py:e") <= 100 and client.persist("py:e") and client.ttl("py:e") == -1
    client.set("py:e", 1, px=20)
    deadline = time.monotonic() + 5
    while client.exists("py:e"):
        assert time.monotonic() < deadline, "the key does not expire"


def counters(client):
    client.delete("py:c")
    assert [client.incr("py:c") for _ in range(100)] == list(range(1, 101))
    assert client.decrby("py:c", 50) == 50 and client.incrbyfloat("py:c", 0.5) == 50.5


def pipelines(client):
    with client.pipeline(transaction=False) as pipe:
        for i in range(2000):
            pipe.set("py:p%d" % i, i).get("py:p%d" % i)
        assert pipe.execute()[1::2] == [b"%d" % i for i in range(2000)]


def transactions(client):
    with client.pipeline() as pipe:
        assert pipe.set("py:t", 1).incr("py:t").get("py:t").execute() == [True, 2, b"2"]
    with client.pipeline() as pipe:
        pipe.watch("py:t")
        client.set("py:t", 9)
        pipe.multi()
        pipe.set("py:t", 10)
        try:
            pipe.execute()
            raise AssertionError("EXEC ignored the conflict")
        except redis.WatchError:
            assert client.get("py:t") == b"9"


def channels(client):
    with client.pubsub() as listener:
        listener.subscribe("py:news")
        listener.psubscribe("py:n*")
        received = [listener.get_message(timeout=5) for _ in range(2)]
        assert client.publish("py:news", "hello") == 2
        received = [listener.get_message(timeout=5) for _ in range(2)]
        assert sorted((m["type"], m["data"]) for m in received) == [("message", b"hello"), ("pmessage", b"hello")], received


def scan(client):
    for i in range(1000):
        client.set("py:scan:%d" % i, i)
    found = list(client.scan_iter("py:scan:*", count=50))
    assert len(found) == len(set(found)) == 1000


def collections(client):
    client.delete("py:l", "py:h", "py:set", "py:z")
    assert client.rpush("py:l", "a", "b", "c") == 3 and client.lrange("py:l", 0, -1) == [b"a", b"b", b"c"]
    assert client.lpop("py:l") == b"a" and client.hset("py:h", mapping={"f": 1, "g": 2}) == 2
    assert client.sadd("py:set", "m") == 1 and client.spop("py:set") == b"m"
    assert client.zadd("py:z", {"a": 2, "b": 1}) == 2 and client.zpopmin("py:z") in ([(b"b", 1.0)], [b"b", 1.0])


def errors(client):
    client.set("py:w", "text")
    for attempt in (lambda: client.incr("py:w"), lambda: client.lpush("py:w", 1), lambda: client.execute_command("NOSUCH")):
        try:
            attempt()
        except redis.ResponseError:
            continue
        raise AssertionError("no error")


def reconnection(client):
    other = redis.Redis(HOST, int(PORT))
    other.client_kill_filter(_id=str(client.client_id()))
    assert client.ping() and client.set("py:r", 1)


def threads(client):
    client.delete("py:threads")
    workers = [threading.Thread(target=lambda: [client.incr("py:threads") for _ in range(250)]) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert client.get("py:threads") == b"2000"


CASES = [strings, expiry, counters, pipelines, transactions, channels, scan, collections, errors, reconnection, threads]
for protocol in (2, 3):
    for case in CASES:
        try:
            case(redis.Redis(HOST, int(PORT), protocol=protocol))
            print("ok %s, RESP%d" % (case.__name__, protocol), flush=True)
        except Exception as error:
            print("not ok %s, RESP%d # %s: %r" % (case.__name__, protocol, type(error).__name__, error), flush=True)
print("done")
