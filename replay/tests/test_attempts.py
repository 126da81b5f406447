"""Failed log-ins by address, with a made-up clock."""

from replay.streamer.attempts import MAX_ADDRESSES, MAX_FAILURES, WITHIN_NS, Attempts

SECOND = 10**9


def failed(times: int, *, every_ns: int = SECOND, address: str = "a") -> Attempts:
    attempts = Attempts()
    for number in range(times):
        attempts.failed(address, number * every_ns)
    return attempts


def test_ten_failures_within_a_minute_refuse_an_address_for_a_minute() -> None:
    attempts = failed(MAX_FAILURES)
    newest = (MAX_FAILURES - 1) * SECOND
    assert attempts.is_refused("a", newest) and attempts.is_refused("a", newest + WITHIN_NS - 1)
    assert not attempts.is_refused("a", newest + WITHIN_NS)
    assert not attempts.is_refused("b", newest)


def test_fewer_or_slower_failures_refuse_nobody() -> None:
    assert not failed(MAX_FAILURES - 1).is_refused("a", 20 * SECOND)
    slow = failed(MAX_FAILURES, every_ns=7 * SECOND)  # the first of ten was 63 s ago
    assert not slow.is_refused("a", 63 * SECOND)


def test_a_success_forgets_what_was_wrong_before() -> None:
    attempts = failed(MAX_FAILURES - 1)
    attempts.succeeded("a")
    attempts.failed("a", 20 * SECOND)
    assert not attempts.is_refused("a", 20 * SECOND)


def test_of_too_many_addresses_the_one_that_failed_longest_ago_is_forgotten() -> None:
    attempts = failed(MAX_FAILURES)
    for number in range(MAX_ADDRESSES - 1):
        attempts.failed(str(number), 20 * SECOND)
    assert attempts.is_refused("a", 20 * SECOND)
    attempts.failed("one more", 20 * SECOND)
    assert not attempts.is_refused("a", 20 * SECOND)
