"""Fuzzing of whatever reads foreign bytes; see __main__.py for how to run it and targets.py for what is fuzzed."""

from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
"""Kept inputs: a folder for each target."""
