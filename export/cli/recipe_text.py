"""Edits a recipe's text key by key and keeps every line and comment that it does not replace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

OWN_MARKS = ("# found", "# assumed")
"""Comments by which `init` knows the lines that it wrote itself and may write again."""
_KEY = re.compile(r"^([A-Za-z_][\w-]*)\s*:")


def line(key: str, value: object, comment: str = "") -> str:
    """Writes one key on one line, however long the line becomes."""
    inline = not isinstance(value, str)
    text: str = yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=inline, width=1_000_000)
    plain = text.strip()[1:-1] if inline else text.strip()
    return f"{plain}  # {comment}\n" if comment else f"{plain}\n"


def first_labels(labels: Sequence[str], most: int = 3) -> str:
    """Lists the first labels for people; those with commas stand in quotes, so that the list can be read."""
    shown = (f'"{label}"' if "," in label else label for label in labels[:most])
    return ", ".join(shown) + (", …" if len(labels) > most else "")


def updated(text: str, lines: Mapping[str, str], kept: frozenset[str]) -> str:
    """Replaces the blocks of `text` whose keys are in `lines`, and appends the other lines.

    kept: keys whose text stays unless `init` wrote it. Lines that `init` wrote earlier and that are not in `lines` are
    removed.
    """
    parts: list[str] = []
    left = dict(lines)
    for key, block in _blocks(text):
        is_own = any(mark in block for mark in OWN_MARKS)
        new = left.pop(key, None)
        if new is not None and (is_own or key not in kept):
            parts.append(new + _lines_behind(block))
        elif not (is_own and new is None):
            parts.append(block)
        else:
            parts.append(_lines_behind(block))
    return "".join([*parts, *left.values()])


def own_values(text: str) -> dict[str, Any]:
    """Returns the values of the lines that `init` wrote itself, by key, whatever the user made of them since."""
    own = "".join(block for _, block in _blocks(text) if any(mark in block for mark in OWN_MARKS))
    try:
        values = yaml.safe_load(own)
    except yaml.YAMLError:  # named when the recipe is loaded
        return {}
    return values if isinstance(values, dict) else {}


def confirmed(text: str, key: str) -> str:
    """Removes the comment by which `init` knows its own line, so that the line is the user's from now on."""
    blocks = _blocks(text)
    return "".join(re.sub(r"  # (found|assumed).*", "", block) if name == key else block for name, block in blocks)


def replaced_values(before: str, after: str) -> tuple[str, ...]:
    """Says of each line that `init` wrote earlier how it differs now, for a user who may have edited it."""
    try:
        now = yaml.safe_load(after)
    except yaml.YAMLError:
        return ()
    return tuple(
        f"{_inline({key: value})} {f'became {_inline({key: now[key]})}' if key in now else 'was removed'}; lines "
        "marked `# found` or `# assumed` are written again: remove that comment to keep your own"
        for key, value in own_values(before).items()
        if now.get(key) != value
    )


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(line(key, value).strip() for key, value in values.items())


def _lines_behind(block: str) -> str:
    """Returns the comments and empty lines at the end of a block; they belong to the key after it."""
    rows = block.splitlines(keepends=True)[1:]
    while rows and not all(not row.strip() or row.startswith("#") for row in rows):
        rows.pop(0)
    return "".join(rows)


def _blocks(text: str) -> list[tuple[str, str]]:
    """Returns the top-level keys with all lines that belong to them; the text before the first key has the key ''."""
    found: list[tuple[str, str]] = []
    for each in text.splitlines(keepends=True):
        match = _KEY.match(each)
        if match or not found:
            found.append((match[1] if match else "", each))
        else:
            found[-1] = (found[-1][0], found[-1][1] + each)
    if found and not found[-1][1].endswith("\n"):
        found[-1] = (found[-1][0], found[-1][1] + "\n")
    return found
