"""The library `limits` as it is, against the server on the port that is given: of many calls at once, over several
connections, exactly as many are admitted as the limit says."""

import sys
from concurrent.futures import ThreadPoolExecutor

from limits import parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

port = int(sys.argv[1])
storages = [RedisStorage(f"redis://127.0.0.1:{port}") for _ in range(4)]

for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
    limit = parse("20 per hour")
    limiters = [strategy(storage) for storage in storages]
    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(lambda index: limiters[index % 4].hit(limit, strategy.__name__), range(200)))
    assert admitted == 20, (strategy.__name__, admitted)
    stats = limiters[0].get_window_stats(limit, strategy.__name__)
    assert stats.remaining == 0, (strategy.__name__, stats)
    assert not limiters[1].test(limit, strategy.__name__)
    limiters[2].clear(limit, strategy.__name__)
    assert limiters[3].hit(limit, strategy.__name__, cost=5)
    assert limiters[0].get_window_stats(limit, strategy.__name__).remaining == 15, strategy.__name__

assert storages[0].reset() is not None
print("exactly the limit")
