"""One target under atheris: `python -m replay.tests.fuzz.worker TARGET [libFuzzer's options and folders]`.

Its modules are loaded with coverage in their bytecode; numba's would not compile with it, so the kernels are left
out. The process never returns from libFuzzer: it ends with status 0, or with another one after a finding.
"""

import importlib
import random
import sys

import atheris

from replay.tests.fuzz import CORPUS

KERNELS = ["replay.feed.csv_kernel", "orderbook.book.kernel"]


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["orderbook", "replay"], exclude=KERNELS):
        target = importlib.import_module("replay.tests.fuzz.targets").TARGETS[name]

    for seed in sorted((CORPUS / name).iterdir()):  # loads or compiles the kernels before libFuzzer's clocks run
        target.run(seed.read_bytes())

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.randrange(3) == 0:
            return atheris.Mutate(data, max_size)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = target.mutate(data, rng)[:max_size]
        return data

    options = [f"-max_len={target.max_bytes}", *options]
    atheris.Setup([sys.argv[0], *options], target.run, custom_mutator=mutate)
    atheris.Fuzz()


main()
