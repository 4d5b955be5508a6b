from nodewright.framework.ratelimit import ItemBackoff, RetryLimiter, TokenBucket


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_item_backoff_doubles_to_its_limit_and_forgets():
    backoff = ItemBackoff(0.005, 1000)
    assert [backoff.when("a") for _ in range(4)] == [0.005, 0.01, 0.02, 0.04]
    assert backoff.when("b") == 0.005
    for _ in range(100):
        last = backoff.when("a")
    assert last == 1000
    assert backoff.failures("a") == 104
    backoff.forget("a")
    assert backoff.failures("a") == 0
    assert backoff.when("a") == 0.005


def test_token_bucket_lets_a_burst_pass_then_its_rate():
    clock = Clock()
    bucket = TokenBucket(rate=10, burst=3, clock=clock)
    assert [bucket.reserve() for _ in range(3)] == [0, 0, 0]
    assert round(bucket.reserve(), 6) == 0.1
    assert round(bucket.reserve(), 6) == 0.2
    clock.now = 100.0
    assert [bucket.reserve() for _ in range(3)] == [0, 0, 0]
    assert bucket.reserve() > 0


def test_retry_limiter_takes_the_longer_delay():
    clock = Clock()
    limiter = RetryLimiter(ItemBackoff(1, 1000), TokenBucket(rate=1, burst=1, clock=clock))
    assert limiter.when("a") == 1
    assert limiter.when("b") == 1  # its own 1 s, and the bucket's second token at 1 s
    assert limiter.when("c") == 2  # the bucket is the longer one
