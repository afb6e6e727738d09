"""What `saccade serve --print-config` prints: every setting as a line of an env file, grouped by who chose it.

No setting holds a secret; some name the file of one, which is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from saccade.service.repository.object_store.address import shown
from saccade.service.settings import PREFIX, Settings, resolved


def effective_lines(settings: Settings, cores: int) -> Iterator[str]:
    """`settings` are as given, not resolved."""
    complete = resolved(settings, cores)
    names = list(Settings.model_fields)
    given = [name for name in names if name in settings.model_fields_set]
    chosen = [name for name in names if getattr(complete, name) != getattr(settings, name)]
    others = [name for name in names if name not in given and name not in chosen]
    measured = "; unless the start measures others, SACCADE_TUNING" if settings.tuning == "measure" else ""
    yield from _block("given", settings, [name for name in given if name not in chosen])
    yield from _block(f"chosen for {cores} cores{measured}", complete, chosen)
    yield from _block("defaults", settings, others)


def _block(title: str, settings: Settings, names: Iterable[str]) -> Iterator[str]:
    lines = [f"{PREFIX}{name.upper()}={_text(getattr(settings, name))}" for name in names]
    if lines:
        yield f"# {title}"
        yield from lines


def _text(value: object) -> str:
    """As a variable says it; empty is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, tuple):
        return os.pathsep.join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
