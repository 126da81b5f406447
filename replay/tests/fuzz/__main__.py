"""`make fuzz`: every target under atheris for a bounded time, one after the other.

    python -m replay.tests.fuzz [--seconds N] [TARGET ...]   fuzz these targets, all without any
    python -m replay.tests.fuzz TARGET FILE                  run one target once, on one input

Begins with the committed corpus and with what earlier runs found interesting, which is kept in var/fuzz/corpus and
never committed. A finding is an input that ends a target with anything but its declared errors: its file is named,
and the exit status is 1.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tqdm import tqdm

from replay.tests.fuzz import CORPUS

WORK: Final = Path("var/fuzz")
_OPTIONS: Final = ("-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1")
_START_S: Final = 60  # to load and, the first time, to compile


def main() -> int:
    names = sorted(folder.name for folder in CORPUS.iterdir())
    parser = argparse.ArgumentParser(prog="python -m replay.tests.fuzz", description="Fuzz what reads foreign bytes.")
    parser.add_argument("what", nargs="*", metavar="TARGET", help=", ".join(names))
    parser.add_argument("--seconds", type=int, default=20, help="for each target (20)")
    options = parser.parse_args()
    if len(options.what) == 2 and options.what[0] in names and Path(options.what[1]).is_file():
        return _run_once(*options.what)
    if unknown := set(options.what) - set(names):
        parser.error(f"expected targets out of {', '.join(names)}, found {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris has no wheel for this platform; `make test` runs the same targets without it.", file=sys.stderr)
        return 1
    # libFuzzer ends its process at once, so what a target writes lies where this one removes it.
    with tempfile.TemporaryDirectory(prefix="batonic-fuzz-") as scratch:
        findings = [_fuzz(name, options.seconds, scratch) for name in options.what or names]
    for finding in filter(None, findings):
        print(f"FOUND {finding}")
    return 1 if any(findings) else 0


def _run_once(name: str, path: str) -> int:
    from replay.tests.fuzz.targets import TARGETS  # loads numba, which the runner itself does without

    TARGETS[name].run(Path(path).read_bytes())
    print(f"{name} holds on {path}")
    return 0


def _fuzz(name: str, seconds: int, scratch: str) -> str | None:
    """Run a target; return where the input lies that it failed on and how to see it again, None without a failure."""
    grown, findings, log = WORK / "corpus" / name, WORK / "findings" / name, WORK / f"{name}.log"
    for folder in (grown, findings):
        folder.mkdir(parents=True, exist_ok=True)
    worker = [sys.executable, "-m", "replay.tests.fuzz.worker", name]
    limits = [*_OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={findings}/"]
    # Compiled with bounds checked: a place outside an array is a finding and not a silent wrong value.
    env = os.environ | {
        "RUST_BACKTRACE": "0",
        "TMPDIR": scratch,
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str((WORK / "numba").resolve()),
    }
    with log.open("wb") as output:
        process = subprocess.Popen([*worker, *limits, grown, CORPUS / name], env=env, stdout=output, stderr=output)
        try:
            _watch(name, process, seconds)
        finally:
            process.kill()
            process.wait()
    told = log.read_text(errors="replace")
    ran = re.search(r"stat::number_of_executed_units: *(\d+)", told)
    print(f"{name}: {ran[1] if ran else 'no'} inputs, {len(list(grown.iterdir()))} kept in {grown}", flush=True)
    if not process.returncode:
        return None
    print(told[-4000:], flush=True)
    written = re.findall(r"Test unit written to (.+)", told)
    return f"{written[-1]} (python -m replay.tests.fuzz {name} {written[-1]})" if written else f"see {log}"


def _watch(name: str, process: "subprocess.Popen[bytes]", seconds: int) -> None:
    """Wait for a target, with a bar on a terminal; not for one that has long overrun its time."""
    begun = time.monotonic()
    with tqdm(total=seconds, desc=name, unit="s", disable=None, leave=False) as bar:
        while process.poll() is None and (spent := time.monotonic() - begun) < seconds + _START_S:
            time.sleep(0.2)
            bar.update(min(round(spent, 1), seconds) - bar.n)


sys.exit(main())
