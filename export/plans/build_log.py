"""Collects what TensorRT logs while it works, and finds the node and layer that an error is about.

TensorRT keeps one logger per process: the first that a builder, a parser or a runtime was given, whichever others are
given later. So this module keeps one as well, and callers listen to it for a while.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

_LONGEST_WARNING = 400  # characters
_MOST_WARNINGS = 50
# TensorRT appends `false`, and a note that there is no driver, to any message.
_NOISE = re.compile(r"^(?:WARNING )?The logger passed into|Unable to determine GPU memory|Cuda", re.IGNORECASE)
# TensorRT's internal errors end with the place in its own source.
_PLACE = re.compile(r"\s*(?:\.|,|\))?\s*In \w+ at \S+:\d+\)?$")
_SHORTEST_NAME = 3  # characters; a node called "x" would be found in every sentence


@dataclass(frozen=True, slots=True)
class ParserError:
    """One node that TensorRT refuses while it parses or builds."""

    operator: str
    node: str
    layer: str  # layer of the torch network; empty when the graph does not come from one
    reason: str


@dataclass(slots=True)
class HeardLines:
    """The warnings and errors that TensorRT logged while a caller listened."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def shown_warnings(self) -> tuple[str, ...]:
        """Returns each warning once, in order, without those that say nothing about the graph."""
        told = (" ".join(text.split())[:_LONGEST_WARNING] for text in self.warnings if not _NOISE.search(text))
        return tuple(dict.fromkeys(told))[:_MOST_WARNINGS]


@functools.cache
def process_log(tensorrt: ModuleType) -> Any:
    """Returns the logger of this process for a runtime."""

    class Log(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.listeners: list[HeardLines] = []

        def log(self, severity: Any, text: str) -> None:
            if severity == tensorrt.ILogger.WARNING:
                for listener in self.listeners:
                    listener.warnings.append(text)
            elif severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                for listener in self.listeners:
                    listener.errors.append(text)

    return Log()


@contextmanager
def listening(tensorrt: ModuleType) -> Iterator[HeardLines]:
    """Collects everything that TensorRT logs in this process within the context, also in other threads."""
    log = process_log(tensorrt)
    heard = HeardLines()
    log.listeners.append(heard)
    try:
        yield heard
    finally:
        log.listeners[:] = [each for each in log.listeners if each is not heard]


def builder_error(lines: list[str], layers: Mapping[str, str], operators: Mapping[str, str]) -> ParserError:
    """Returns the error of a build that gave no plan; `layers` and `operators` are by the names of the graph's nodes.

    TensorRT writes node names into its messages, alone or as `{ForeignNode[first...last]}`; the earliest one counts.
    """
    if not lines:
        return ParserError("", "", "", "the builder returned no plan and no message")
    for line in reversed(lines):
        node = _first_name(line, layers)
        if node is not None:
            return ParserError(operators.get(node, ""), node, layers[node], _reason(line))
    return ParserError("", "", "", _reason(lines[-1]))


def parser_reason(description: str) -> str:
    """Returns the sentence of a parser's description that states the reason."""
    lines = [line for line in description.splitlines() if line not in ("", "false") and "Cuda" not in line]
    return lines[-1] if lines else "TensorRT has no such operator"


def _first_name(line: str, layers: Mapping[str, str]) -> str | None:
    """Finds the first node name in a line; longer names go first, because `stem/Conv` also contains `stem`."""
    places: list[tuple[int, int, str]] = []
    for name in layers:
        if len(name) >= _SHORTEST_NAME:
            # TensorRT appends `_` and a number to names that it makes unique.
            found = re.search(rf"(?<![\w/]){re.escape(name)}(?:_\d+)*(?![\w/])", line)
            if found is not None:
                places.append((found.start(), -len(name), name))
    return min(places)[2] if places else None


def _reason(line: str) -> str:
    return _PLACE.sub("", " ".join(line.split()))
