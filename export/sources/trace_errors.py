"""Explains in one line why a network cannot be traced, with its own source line and what to change."""

from __future__ import annotations

import itertools
import linecache
import logging
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

Place = tuple[Path, int]  # a file and a line in it

_TORCH = Path(torch.__file__).parent
_EXPORTER = Path(__file__).parents[1]  # its frames are not the network's
_LONGEST = 160  # characters of the tracer's own words


def describe_trace_failure(error: Exception) -> str:
    """`nets.py:14 (if x.sum() > 0:): the code depends on pixel values …`; without a line where none is known."""
    hint = _hint(error)
    place = _place(error)
    if place is None:
        return hint
    file, line, code = place
    return f"{file}:{line} ({code}): {hint}"


@contextmanager
def specialisations_noted() -> Iterator[None]:
    """Adds to an error of the tracer inside where a dimension became a number; torch only logs that."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level, listener = logger.level, _Specialisations()
    logger.addFilter(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        for path, line in listener.places:
            error.add_note(f"{path}:{line}")
        raise
    finally:
        logger.removeFilter(listener)
        logger.setLevel(level)


class _Specialisations(logging.Filter):
    """Notes the network's line that is running when torch logs such a message, and keeps the log as quiet as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if "[guard added]" in str(record.msg) and "Eq(" in record.getMessage():
            stack = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_stack(None)]
            place = _innermost_own(stack[::-1])
            if place is not None:
                self.places.append(place)
        return record.levelno >= logging.WARNING


def _hint(error: Exception) -> str:
    text = str(error)
    if "data-dependent" in text:
        return (
            "the code depends on pixel values, which a graph cannot follow; "
            "use torch.where, masks or a fixed count instead of if, .item(), .tolist() or nonzero()"
        )
    if "specialized it to be a constant" in text or "Constraints violated" in text:
        return (
            "the code fixes the number of images (a Python loop over them, len(x), .tolist(), or a size compared with "
            "a number); write it as one tensor operation over the batch"
        )
    if ".numpy()" in text:
        return "the code leaves torch for numpy, where a tracer cannot follow; use torch operations"
    return f"the tracer stopped here: {_own_words(error)}"


def _place(error: Exception) -> tuple[str, int, str] | None:
    """File name, line and code: from the traceback, or from what was noted while tracing."""
    trace = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    notes = [note.rpartition(":") for note in getattr(error, "__notes__", ())]
    noted = [(Path(file), int(line)) for file, _, line in notes if line.isdigit()]
    place = _innermost_own(trace) or (noted[-1] if noted else None)
    if place is None:
        return None
    path, line = place
    return path.name, line, linecache.getline(str(path), line).strip()


def _innermost_own(frames: list[Place]) -> Place | None:
    """The last frame, of outermost first, that is the network's code; frames before torch was entered are callers'."""
    inside = list(itertools.dropwhile(lambda frame: not frame[0].is_relative_to(_TORCH), frames))
    return next((frame for frame in reversed(inside) if _is_networks_own(frame[0])), None)


def _is_networks_own(path: Path) -> bool:
    standard = Path(sysconfig.get_paths()["stdlib"])
    is_standard = path.is_relative_to(standard) and "site-packages" not in path.parts
    return path.is_file() and not (path.is_relative_to(_TORCH) or path.is_relative_to(_EXPORTER) or is_standard)


def _own_words(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return (first[: _LONGEST - 1] + "…" if len(first) > _LONGEST else first) or type(error).__name__
