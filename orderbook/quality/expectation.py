"""A report compared with what somebody expects of it: any part of it, in its own shape. Floor 1."""

import json
from collections.abc import Iterator, Mapping


def parse_expectation(text: str) -> dict[str, object]:
    """Return what a JSON text expects. Raises ValueError when it is no JSON object."""
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"expected JSON, found {error.msg.lower()} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise ValueError(
            "expected the JSON of a report, found more levels within each other than can be read"
        ) from error
    if not isinstance(expected, dict):
        raise ValueError(f"expected a JSON object, found {_shown(expected)}")
    return expected


def differences(expected: object, found: object, where: str = "") -> Iterator[str]:
    """Yield each difference in words: where it is, what was expected, what was found.

    Of an object the keys that are expected are compared, a list as a whole. A key that the report does not have is a
    difference.

    >>> list(differences({"idle": {"count": 2}}, {"idle": {"count": 3, "total_ns": "5"}, "ok": True}))
    ['idle.count: expected 2, found 3']
    >>> list(differences({"okay": True}, {"ok": True}))
    ["okay: expected one of the report's keys (ok), found another"]
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            place = f"{where}.{key}" if where else str(key)
            if key in found:
                yield from differences(value, found[key], place)
            else:
                yield f"{place}: expected one of the report's keys ({', '.join(found)}), found another"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif expected != found or type(expected) is not type(found):  # 1 is not true
        yield f"{where}: expected {_shown(expected)}, found {_shown(found)}"


def _shown(value: object) -> str:
    """Write a value as JSON, a big one by its size."""
    if isinstance(value, list) and value:
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
