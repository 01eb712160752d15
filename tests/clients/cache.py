"""redis-py's client-side cache: what it keeps is dropped when somebody else changes it."""

import sys
import threading
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

# The library asks for the version of Redis that its makers tested; the protocol is that of Redis 6.
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"

port = int(sys.argv[1])


def caching():
    return redis.Redis(port=port, protocol=3, decode_responses=True, cache_config=CacheConfig(max_size=1000))


def calls(client, command):
    stats = client.info("commandstats").get(f"cmdstat_{command}")
    return stats["calls"] if stats else 0


def until(what, is_so):
    for _ in range(2000):
        if is_so():
            return
        time.sleep(0.005)
    raise SystemExit(f"never: {what}")


plain = redis.Redis(port=port, decode_responses=True)
reader = caching()
plain.set("k", "1")
assert reader.get("k") == "1"
before = calls(plain, "get")
for _ in range(100):
    assert reader.get("k") == "1"
assert calls(plain, "get") == before, "the second read is answered by the library"
plain.set("k", "2")
until("the change is heard of", lambda: reader.get("k") == "2")
reader.set("k", "3")
assert reader.get("k") == "3"
plain.hset("h", mapping={"a": "1", "b": "2"})
assert reader.hgetall("h") == {"a": "1", "b": "2"}
assert reader.mget("k", "none") == ["3", None]
plain.hset("h", "a", "5")
until("a hash's change is heard of", lambda: reader.hgetall("h") == {"a": "5", "b": "2"})
plain.set("none", "x")
until("a key comes into being", lambda: reader.mget("k", "none") == ["3", "x"])
plain.set("short", "x", px=60)
assert reader.get("short") == "x"
until("a key expires", lambda: reader.get("short") is None)
if len(sys.argv) < 3:
    plain.flushall()
    until("all is gone", lambda: reader.get("k") is None)

# Many readers beside a writer: numbers never go back, and end where they are.
plain.set("n", 0)
stop = threading.Event()
faults = []


def read():
    client, last = caching(), 0
    while not stop.is_set():
        value = int(client.get("n"))
        if value < last:
            faults.append((last, value))
        last = value
    for _ in range(400):
        if int(client.get("n")) == 3000:
            return
        time.sleep(0.005)
    faults.append("an old value is kept")


readers = [threading.Thread(target=read) for _ in range(4)]
for thread in readers:
    thread.start()
for _ in range(3000):
    plain.incr("n")
stop.set()
for thread in readers:
    thread.join()
assert not faults, faults
print("nothing old is kept")
