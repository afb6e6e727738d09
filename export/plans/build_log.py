"""What TensorRT says while it works. Promises: warnings and errors are kept, and an error names its node and layer.

TensorRT keeps one logger per process: the first that a builder, a parser or a runtime was given, whatever the others
are given later. So there is one here as well, and whoever wants to hear it listens for a while.
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
# It adds `false`, and a note that there is no driver, to whatever it says.
_NOISE = re.compile(r"^(?:WARNING )?The logger passed into|Unable to determine GPU memory|Cuda", re.IGNORECASE)
# TensorRT's internal errors end with the place in its own source.
_PLACE = re.compile(r"\s*(?:\.|,|\))?\s*In \w+ at \S+:\d+\)?$")
_SHORTEST_NAME = 3  # a node called "x" would be found in every sentence


@dataclass(frozen=True, slots=True)
class ParserError:
    """One node that TensorRT refuses, while it parses or while it builds."""

    operator: str
    node: str
    layer: str  # of the torch network; empty when the graph does not come from one
    reason: str


@dataclass(slots=True)
class HeardLines:
    """What was said while listening."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def shown_warnings(self) -> tuple[str, ...]:
        """Each once, in order, without those that say nothing about the graph."""
        told = (" ".join(text.split())[:_LONGEST_WARNING] for text in self.warnings if not _NOISE.search(text))
        return tuple(dict.fromkeys(told))[:_MOST_WARNINGS]


@functools.cache
def process_log(tensorrt: ModuleType) -> Any:
    """The logger of this process for a runtime."""

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
    """Hears everything that TensorRT says in this process meanwhile, also to other threads."""
    log = process_log(tensorrt)
    heard = HeardLines()
    log.listeners.append(heard)
    try:
        yield heard
    finally:
        log.listeners[:] = [each for each in log.listeners if each is not heard]


def builder_error(lines: list[str], layers: Mapping[str, str], operators: Mapping[str, str]) -> ParserError:
    """The error of a build that gave no plan. `layers` and `operators` are those of the graph's nodes, by name.

    TensorRT writes node names into its sentences, alone or as `{ForeignNode[first...last]}`; the earliest one counts.
    """
    if not lines:
        return ParserError("", "", "", "the builder returned no plan and no message")
    for line in reversed(lines):
        node = _first_name(line, layers)
        if node is not None:
            return ParserError(operators.get(node, ""), node, layers[node], _reason(line))
    return ParserError("", "", "", _reason(lines[-1]))


def parser_reason(description: str) -> str:
    """The sentence of a parser's description that says why."""
    lines = [line for line in description.splitlines() if line not in ("", "false") and "Cuda" not in line]
    return lines[-1] if lines else "TensorRT has no such operator"


def _first_name(line: str, layers: Mapping[str, str]) -> str | None:
    """Longer names first: `stem/Conv` also contains a node `stem`."""
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
