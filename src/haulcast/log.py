"""Logs: one line per event, for people on a terminal, JSON elsewhere. Never payloads, tokens or credentials."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict

_about_process: dict[str, Callable[[], object]] = {}


def tell(**about: Callable[[], object]) -> None:
    """Have every line of the log tell this as well."""
    _about_process.update(about)


def configure(level: str = "info") -> None:
    """Send every log line to standard error, from haulcast and from its libraries alike."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _tell_about_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        # Tracebacks without the values of variables: those may be payloads and tokens.
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Stderr())),  # a line in one write, whole among others
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_ToStructlog()], force=True)


def _tell_about_process(_logger: object, _name: str, event: EventDict) -> EventDict:
    for name, value in _about_process.items():
        event.setdefault(name, value())
    return event


class _Stderr:
    """Standard error, as long as it can be written to.

    A full disk or a broken pipe must not turn a line of the log into an exception in whatever wrote it: on the same
    disk the journal is failing already, and its actors are needed.
    """

    def write(self, text: str) -> None:
        """Write, or do without."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, or do without."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class _ToStructlog(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
