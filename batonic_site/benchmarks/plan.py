"""What `make bench` runs, as data: commands of manage.py that print JSON with --json. Floor 5.

A new benchmark is a row here and a row of a table in page.py.
"""

from typing import Final, NamedTuple


class Measurement(NamedTuple):
    """One command."""

    name: str
    """How page.py asks for what it found."""
    words: tuple[str, ...]
    quick: tuple[str, ...] = ()
    """Put behind for a look that only shows that it works: of an option that is given twice, the last counts."""
    with_replay: bool = False
    """Whether it needs a replay that runs, with its worker."""


RATES: Final = (200, 1_000, 10_000, 50_000, 500_000)
"""That the control plane lets in, records a second."""
_RATE_S: Final = 5
MANY_BOOKS: Final = (100, 1_000, 10_000)
_QUICK_PIPELINE: Final = ("--records", "20000", "--rounds", "1")
_QUICK_BOOK: Final = ("--records", "5000", "--rounds", "1")


def _pipeline(name: str, *words: str, quick: tuple[str, ...] = _QUICK_PIPELINE) -> Measurement:
    return Measurement(name, ("benchpipeline", *words), quick)


def _rate(rate: int) -> Measurement:
    words = "--rate", str(rate), "--records", str(rate * _RATE_S), "--snapshot-every", "10"
    return _pipeline(f"rate-{rate}", *words, quick=("--rate", "20000", "--records", "10000", "--rounds", "1"))


def _sockets(name: str, *words: str, quick: tuple[str, ...] = ()) -> Measurement:
    return Measurement(name, ("loadws", *words), ("--clients", "2", "--seconds", "1", "--web-processes", "1", *quick))


PLAN: Final = (
    Measurement("book-1", ("benchbook", "--instruments", "1", "--rounds", "5"), _QUICK_BOOK),
    Measurement(
        "book-1000", ("benchbook", "--instruments", "1000", "--rounds", "5"), ("--instruments", "2", *_QUICK_BOOK)
    ),
    Measurement("gateway-1", ("benchgateway", "--clients", "1", "--rounds", "3"), ("--records", "100000")),
    Measurement("gateway-3", ("benchgateway", "--clients", "3", "--rounds", "3"), ("--records", "100000")),
    Measurement("punctual", ("benchgateway", "--market-time", "1,10,1000", "--rounds", "2"), ("--seconds", "0.3")),
    Measurement("control", ("benchcontrol", "--rounds", "100"), ("--rounds", "2"), with_replay=True),
    _pipeline("dbn", "--records", "5000000", "--rounds", "5"),
    _pipeline("csv", "--records", "5000000", "--framing", "csv"),
    _pipeline("every-10", "--records", "2000000", "--snapshot-every", "10", "--database"),
    _pipeline("every-1", "--records", "500000", "--snapshot-every", "1", "--database"),
    _pipeline("every-change", "--records", "2000000", "--snapshot-every", "0", "--database"),
    *(
        _pipeline(
            f"books-{books}", "--instruments", str(books), "--records", "5000000", "--rounds", "3",
            quick=("--instruments", "40", *_QUICK_PIPELINE),
        )
        for books in MANY_BOOKS
    ),
    *map(_rate, RATES),
    _pipeline(
        "audience", "--rate", "50000", "--records", "1000000", "--clients", "100", "--rounds", "3",
        quick=("--rate", "2000", "--records", "12000", "--clients", "3", "--rounds", "1"),
    ),
    _pipeline(
        "memory", "--resting", "--records", "1000000", "--replays", "10", "--rounds", "3",
        quick=("--replays", "2", *_QUICK_PIPELINE),
    ),
    _sockets("sockets-10hz", "--clients", "1000", "--push-ms", "100", "--web-processes", "1"),
    _sockets("sockets-20hz", "--clients", "10,50,100,1000", "--push-ms", "50", "--web-processes", "2"),
    _sockets(
        "stalled", "--clients", "100", "--push-ms", "50", "--web-processes", "1", "--seconds", "60", "--stalled", "50",
        quick=("--stalled", "2"),
    ),
    _sockets(
        "churn", "--clients", "10", "--web-processes", "1", "--seconds", "1", "--churn", "2000",
        quick=("--churn", "20"),
    ),
)  # fmt: skip
