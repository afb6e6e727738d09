"""Configures log events: each is one line on stderr, with fields. Promises: what cannot be written is lost, no more.

Libraries that use `logging`, warnings and uncaught exceptions become events as well. What native code of a child
writes to stderr itself becomes events of the supervisor (`supervisor/native_lines.py`).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

_MINUTE_S = 60.0
_LEVEL = logging.getLogger("saccade")  # holds the level of our own events, of this process


@dataclass(slots=True)
class _Kind:
    since_s: float
    logged: int = 0
    more: int = 0  # since the last line


class Sampler:
    """Says which lines are logged: at most so many of a kind in a minute. Belongs to one thread."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}  # the caller's, so they are few

    def admitted(self, kind: str) -> int | None:
        """How many of the kind were left out before this one; None when this one is left out as well."""
        now_s = self._clock()
        known = self._kinds.setdefault(kind, _Kind(now_s))
        if now_s - known.since_s >= _MINUTE_S:
            known.since_s, known.logged = now_s, 0
        if known.logged >= self._per_minute:
            known.more += 1
            return None
        known.logged += 1
        more, known.more = known.more, 0
        return more

    def left_out(self, kind: str) -> int:
        """How many of the kind were left out since the last line."""
        return self._kinds[kind].more if kind in self._kinds else 0


class _Stderr:
    """Standard error as it is now, without its failures: a full disk or a reader that ended must not end the server."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Handler(logging.StreamHandler[Any]):
    """Ours among the handlers of the root logger."""


def configure_logs(log_format: str, process: str, level: str = "info") -> None:
    """Routes all events to stderr as console lines or JSON, and adds the process name to each of ours."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    stderr = cast("TextIO", _Stderr())
    structlog.configure(
        processors=[_drop_below_level, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        # `print` would write the line and its end separately to an unbuffered stderr, and processes would mix lines.
        logger_factory=structlog.WriteLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    _route_libraries(stderr, [_name_the_library, *shared], renderer)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda ended: _log_uncaught(
        ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback
    )
    set_level(level)


def set_level(level: str) -> None:
    """Changes which of our events this process logs from now on: debug, info, warning or error."""
    _LEVEL.setLevel(level.upper())


def is_debug() -> bool:
    """For events that would cost time even where they are dropped."""
    return _LEVEL.isEnabledFor(logging.DEBUG)


def _drop_below_level(logger: object, name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    if not _LEVEL.isEnabledFor(structlog.processors.NAME_TO_LEVEL[name]):
        raise structlog.DropEvent
    return event


def _route_libraries(
    stderr: TextIO, chain: list[structlog.types.Processor], renderer: structlog.types.Processor
) -> None:
    handler = _Handler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(known for known in root.handlers if not isinstance(known, _Handler)), handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what its parser refuses is logged by us, sampled
    logging.captureWarnings(True)


def _name_the_library(logger: object, name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    event["library"] = event["_record"].name
    return event


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("uncaught", exc_info=(kind, error, trace))
