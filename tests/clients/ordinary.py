"""Ordinary use of redis-py against an Anteroom that stands before a Redis. Argument: the port."""

import sys
import threading
import time

import redis


def ordinary(r, name):
    r.flushall()
    assert r.set("a", "1") and r.get("a") == "1" and r.incr("a") == 2
    assert r.hset("h", mapping={"x": 1, "y": 2}) == 2 and r.hgetall("h") == {"x": "1", "y": "2"}
    assert r.zadd("z", {"m": 1.5, "n": 2}) == 2
    assert [tuple(pair) for pair in r.zrange("z", 0, -1, withscores=True)] == [("m", 1.5), ("n", 2.0)]
    assert r.sadd("s", "p", "q") == 2 and r.smembers("s") == {"p", "q"}
    assert r.mget(["a", "none"]) == ["2", None]
    assert sorted(r.scan_iter("*")) == ["a", "h", "s", "z"]

    # Pipelines, as a transaction and not.
    for transaction in (False, True):
        with r.pipeline(transaction=transaction) as pipe:
            replies = pipe.set("p", 0).incr("p").incr("p").get("p").hgetall("h").execute()
        assert replies == [True, 1, 2, "2", {"x": "1", "y": "2"}], replies
    with r.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"k{number % 100}", number).get(f"k{number % 100}")
        replies = pipe.execute()
    assert replies[1::2] == [str(number) for number in range(5000)]
    with r.pipeline() as pipe:
        pipe.lpush("a", "x").get("a")
        try:
            pipe.execute()
            raise AssertionError("a wrong type is no error")
        except redis.ResponseError as error:
            assert "WRONGTYPE" in str(error), error

    # Transactions with WATCH: increments by several threads, none lost.
    r.set("count", 0)

    def add(pipe):
        value = int(pipe.get("count"))
        pipe.multi()
        pipe.set("count", value + 1)

    threads = [threading.Thread(target=lambda: [r.transaction(add, "count") for _ in range(50)]) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert r.get("count") == "200", r.get("count")

    # Scripts, by their hash and loaded when they are missing; locks are scripts too.
    r.script_flush()
    script = r.register_script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
    assert script(keys=["scripted"], args=["v"]) == "v" and r.get("scripted") == "v"
    assert script(keys=["scripted"], args=["w"]) == "w" and r.get("scripted") == "w"
    with r.lock("lock", timeout=5):
        assert r.get("lock") is not None
    assert r.get("lock") is None

    # Blocking pops.
    threading.Timer(0.05, lambda: r.rpush("queue", "job")).start()
    assert tuple(r.blpop("queue", timeout=5)) == ("queue", "job")
    assert r.blpop("queue", timeout=0.05) is None

    # Streams, which block too.
    first = r.xadd("stream", {"f": "v"})
    assert r.xlen("stream") == 1 and r.xrange("stream")[0] == (first, {"f": "v"})
    r.xgroup_create("stream", "group", id="0")
    read = r.xreadgroup("group", "me", {"stream": ">"}, block=100)
    assert first in str(read), read
    assert r.xack("stream", "group", first) == 1

    # Subscriptions.
    pubsub = r.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("news")
    pubsub.psubscribe("al*")
    got = []
    end = time.time() + 10
    while len(got) < 2 and time.time() < end:
        if len(got) == 0:
            r.publish("news", "hello")
        else:
            r.publish("alert", "fire")
        message = pubsub.get_message(timeout=0.2)
        if message and message["data"] not in got:
            got.append(message["data"])
    assert got == ["hello", "fire"], got
    pubsub.unsubscribe()
    pubsub.punsubscribe()
    pubsub.close()

    # Databases.
    other = redis.Redis(port=r.connection_pool.connection_kwargs["port"], db=5, decode_responses=True)
    other.set("a", "five")
    assert other.get("a") == "five" and r.get("a") == "2"
    print(name, "ok")


port = int(sys.argv[1])
ordinary(redis.Redis(port=port, decode_responses=True, protocol=2), "RESP2")
ordinary(redis.Redis(port=port, decode_responses=True, protocol=3), "RESP3")
