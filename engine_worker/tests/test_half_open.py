"""A feed whose peer has vanished without a word: no end, no reset, nothing."""

import pytest

from engine_worker.tests.half_open import in_a_network_of_its_own


def test_a_vanished_peer_of_the_raw_feed_is_given_up_by_the_kernel_and_is_no_end_of_the_replay() -> None:
    try:
        reason, seconds = in_a_network_of_its_own()
    except PermissionError as error:
        pytest.skip(f"no network of our own here: {error}")
    assert reason == "[Errno 110] Connection timed out"
    assert 2 <= int(seconds) < 10
