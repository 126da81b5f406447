"""What a look at every record of a file found, kept beside the decoded recordings, so that one look is enough. Floor 1.

Such a look reads a little of each record, and so all of a file that lies on a cold disk: minutes, which nobody who
starts a replay can wait for. What it found holds for this very file: its length, both of its times, and the records
that are looked at each time, the first and the last among them, must be the same.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from orderbook.book.mbo import MboArray

WORTH_KEEPING: Final = 1_000_000
"""Records; a look at fewer takes no time."""
_VERSION: Final = 1
_SAMPLES: Final = 64  # records that a fingerprint looks at


def instruments_of(records: MboArray) -> list[int]:
    """Return the ids of the instruments that have records, ascending. Cost: one pass."""
    ids = records["instrument_id"]
    return [int(ids[0])] if (ids == ids[0]).all() else [int(each) for each in np.unique(ids)]


def fingerprint(records: MboArray) -> bytes:
    """Return 16 bytes that tell recordings apart: a digest of their length and of 64 records. Cost: O(1)."""
    sample = np.unique(np.linspace(0, len(records) - 1, min(_SAMPLES, len(records)), dtype=np.int64))
    return hashlib.blake2b(records[sample].tobytes(), digest_size=16, salt=len(records).to_bytes(16, "little")).digest()


class FirstLook:
    """What is kept of one recorded file, whose records lie in ``mapped``: that file, or what it was decoded to."""

    def __init__(self, path: Path, mapped: Path, folder: Path) -> None:
        """Remember what the file is now. Raises OSError."""
        self.path = folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.seen"
        self._mapped = mapped
        self._origin = self._origin_now()

    def recall(self, records: MboArray) -> list[int] | None:
        """Return the instruments that were found in these records; None when this file was not looked at."""
        try:
            kept = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or kept != self._of(records, kept.get("instruments")):
            return None
        instruments: list[int] = kept["instruments"]
        return instruments

    def keep(self, records: MboArray, instruments: list[int]) -> None:
        """Keep what was found, if it is worth it. What cannot be kept is looked at again the next time."""
        with contextlib.suppress(OSError):
            if len(records) >= WORTH_KEEPING and self._origin_now() == self._origin:
                self._write(json.dumps(self._of(records, instruments)))

    def _of(self, records: MboArray, instruments: Any) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "origin": self._origin,
            "fingerprint": fingerprint(records).hex(),
            "instruments": instruments,
        }

    def _origin_now(self) -> list[int]:
        found = self._mapped.stat()
        return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]

    def _write(self, text: str) -> None:
        """Write it as a whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, suffix=".part", delete=False) as file:
            try:
                file.write(text)
                file.flush()
                os.replace(file.name, self.path)
            finally:
                Path(file.name).unlink(missing_ok=True)
