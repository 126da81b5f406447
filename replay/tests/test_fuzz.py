"""A short run of what `make fuzz` does for longer: kept inputs, and seeded changes of them, through every target."""

import random

import pytest

from replay.tests.fuzz import CORPUS
from replay.tests.fuzz.targets import TARGETS

CHANGED = {"recording": 400, "zstd": 400}
"""Inputs made for a target, where files take their time; 1500 for the others, at 2 ms and less."""


def run(name: str, data: bytes) -> None:
    """Run a target; a failure shows the input, to be saved and run again with `python -m replay.tests.fuzz`."""
    try:
        TARGETS[name].run(data)
    except BaseException as failure:
        failure.add_note(f"found by the target {name} on the input bytes.fromhex({data.hex()!r})")
        raise


def kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_ends_as_declared(name: str) -> None:
    for data in kept(name):
        run(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_end_as_declared(name: str) -> None:
    target, rng, seeds = TARGETS[name], random.Random(name), kept(name)
    for _ in range(CHANGED.get(name, 1500)):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = target.mutate(data, rng)[: target.max_bytes]
        run(name, data)
