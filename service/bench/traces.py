"""Recorded arrivals on disk. `--trace` replays what `--record` writes; an error names the number of the bad line.

JSON lines with `at_s` and optionally `model` and `image`, or CSV with a header of the same names, or one number
per line. Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from saccade.service.errors import BadParameter


@dataclass(frozen=True, slots=True)
class Arrival:
    """One recorded request; `model` and `image` (a file name) are None where the recording does not say."""

    at_s: float
    model: str | None = None
    image: str | None = None


def read_trace(path: Path) -> tuple[Arrival, ...]:
    """Arrivals by time, the first at zero. Raises BadParameter."""
    text = path.read_text("utf-8-sig")
    rows = _json_rows(text, path) if text.lstrip().startswith("{") else _csv_rows(text)
    arrivals = sorted((_arrival(row, f"{path}:{number}") for number, row in rows), key=lambda arrival: arrival.at_s)
    if not arrivals:
        raise BadParameter(f"{path} holds no arrival")
    first_s = arrivals[0].at_s
    return tuple(Arrival(item.at_s - first_s, item.model, item.image) for item in arrivals)


def write_trace(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines; each of `rows` holds at least `at_s`."""
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row) + b"\n" for row in rows)


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadParameter(f"{path}:{number} is not JSON: {error}") from error
        yield number, row if isinstance(row, dict) else {}


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    first = text.lstrip().partition("\n")[0].split(",")[0].strip()
    names = None if first.strip('"') == "at_s" else ["at_s", "model", "image"]
    reader = csv.DictReader(io.StringIO(text), names)
    for row in reader:
        yield reader.line_num, row


def _arrival(row: Mapping[str, Any], where: str) -> Arrival:
    try:
        at_s = float(row["at_s"])
    except (KeyError, TypeError, ValueError):
        at_s = math.nan
    if not math.isfinite(at_s):
        raise BadParameter(f"{where} names no moment: it needs at_s, a number of seconds")
    return Arrival(at_s, row.get("model") or None, row.get("image") or None)
