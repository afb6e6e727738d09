"""Log events. Promises: events with fields, to stderr, one line each; configured once per process."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(log_format: str, process: str) -> None:
    """Routes structlog to stderr as console lines or JSON. Side effect: binds the process name to every event."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Not print: where stderr is unbuffered it writes the end of the line apart, and other processes come between.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
