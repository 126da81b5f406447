"""docs/faults.md names a test for each fault, and each of them exists."""

import re
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
ROWS = [line for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")]
NAMED = [tuple(found) for line in ROWS for found in re.findall(r"`(\S+\.py)::(test_\w+)`", line)]


def test_every_fault_of_the_table_names_a_test() -> None:
    faults = [line for line in ROWS if line.count("|") == 5 and not line.startswith("| fault ")]
    assert len(faults) > 15
    assert [line for line in faults if "::test_" not in line] == []


def test_every_test_that_the_table_names_exists() -> None:
    missing = [f"{path}::{name}" for path, name in NAMED if f"def {name}(" not in (ROOT / path).read_text()]
    assert NAMED
    assert missing == []
