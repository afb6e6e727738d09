"""Writes the table of settings in service/README.md from `Settings`: `python -m tests.support.settings_table`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from saccade.service.settings import PREFIX, Settings

DOCUMENT = Path(__file__).resolve().parents[2] / "service/README.md"
BEGIN = "<!-- settings: written by `make docs`; edit service/settings.py instead -->"
END = "<!-- end of settings -->"
_MIB = 1024 * 1024
_TABLE = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def settings_table() -> str:
    """One row for each setting, in the order of the code."""
    rows = [f"| `{PREFIX}{name.upper()}` | {_default(field)} | {_meaning(field)} |" for name, field in _fields()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def with_table(document: str) -> str:
    """The document with its table written anew. Raises ValueError where the marks are missing."""
    if len(_TABLE.findall(document)) != 1:
        raise ValueError(f"{DOCUMENT} must hold these two lines once, in this order: {BEGIN} and {END}")
    return _TABLE.sub(lambda _: f"{BEGIN}\n{settings_table()}\n{END}", document)


def _fields() -> list[tuple[str, FieldInfo]]:
    return list(Settings.model_fields.items())


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= _MIB and value % _MIB == 0:
        return f"{value} ({value // _MIB} MiB)"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _meaning(field: FieldInfo) -> str:
    text = (field.description or "").replace("<", "&lt;").replace("|", "\\|")
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"{text} (one of {', '.join(choices)})" if choices else text


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8")), "utf-8")
