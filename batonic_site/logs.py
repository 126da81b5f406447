"""Where log records go: standard error, one JSON object a line, or readable text on a terminal. Floor 5.

Modules use `logging.getLogger(__name__)` or `structlog.get_logger()`; both end here. A line has `ts`, `level`, `logger`
and `event`, and what the caller added with `extra`: `run_id`, `symbol`, `seq`, `engine`, `status`. Nothing that is
logged, wherever it came from, can begin a line of its own or move the cursor of a terminal.
"""

import logging
import logging.config
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog
from django.core.exceptions import RequestAborted
from structlog.typing import Processor

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(options: Mapping[str, Any]) -> None:
    """Set logging up for this process; Django calls it with settings.LOGGING, which holds the level."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.stdlib.ExtraAdder(),
    ]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers()],
                }
            },
            "filters": {"left": {"()": "batonic_site.logs.without_visitors_that_left"}},
            "handlers": {"stderr": {"()": "batonic_site.logs.StandardError", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": options["level"]},
            "loggers": {
                "asyncio": {"filters": ["left"]},
                "axes.apps": {"level": "WARNING"},  # introduces itself in every process
                "daphne": {"level": "WARNING"},
                "django.channels.server": {"level": "WARNING"},  # one line a request otherwise
            },
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared[:-1],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class StandardError(logging.Handler):
    """Writes to what standard error is when a record comes: whoever captures it puts another file there for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # logging's own way: told on standard error, and the program goes on
            self.handleError(record)


def without_visitors_that_left() -> Callable[[logging.LogRecord], bool]:
    """Return a filter: Django forgets its watcher of a connection that closed early, and asyncio calls it an error."""
    return lambda record: not (record.exc_info and isinstance(record.exc_info[1], RequestAborted))


def one_line(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters in a record's texts as Python does: \\n for a line feed. A traceback keeps its lines.

    >>> one_line(None, "", {"event": "said: a\\r\\nb", "seq": 7})
    {'event': 'said: a\\\\r\\\\nb', 'seq': 7}
    """
    for key, value in event.items():
        if isinstance(value, str) and _CONTROL.search(value):
            event[key] = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return event


def _renderers() -> list[Processor]:
    if sys.stderr.isatty():
        return [one_line, structlog.dev.ConsoleRenderer(timestamp_key="ts")]
    # in ASCII: the line separators of Unicode are not all control characters
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
