"""Configures log events: each is one line on stderr, with fields."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(log_format: str, process: str) -> None:
    """Routes structlog to stderr as console lines or JSON, and adds the process name to every event."""
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
        # `print` would write the line and its end separately to an unbuffered stderr, and processes would mix lines.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
