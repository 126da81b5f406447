"""What is asked of a replay, for tests."""

from replay.models import Dataset
from replay.runs import RunRequest
from replay.streamer.messages import FixedPlace, Pace

SLOW: Pace = {"records_per_s": 10}


def run_request(
    dataset: Dataset,
    pace: Pace = SLOW,
    *,
    loop: bool = False,
    window: tuple[FixedPlace | None, FixedPlace | None] = (None, None),
    request_id: str | None = None,
) -> RunRequest:
    """Return a request to replay this dataset."""
    return {
        "dataset_id": dataset.pk,
        "pace": pace,
        "skip_idle_s": None,
        "loop": loop,
        "max_msgs": -1,
        "window_from": window[0],
        "window_to": window[1],
        "user_id": None,
        "request_id": request_id,
    }
