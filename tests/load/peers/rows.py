"""The document behind report-peers.json. Promises: one row per figure, on disk at once; another load is refused."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tests.load.peers.plan import Load, Place


class ReportRefused(Exception):
    """The report at hand holds something else; the message says what."""


class Rows:
    """Side effect: every change is on disk when a method returns."""

    def __init__(self, file: Path, settings: dict[str, Any], call: dict[str, Any]) -> None:
        """`settings` must be those of the report; `call` says where this process's figures come from."""
        self._file = file
        self._document: dict[str, Any] = {"settings": settings, "calls": [], "rows": {}}
        if file.exists():
            found = orjson.loads(file.read_bytes())
            differing = _differing(found["settings"], orjson.loads(orjson.dumps(settings)))
            if differing:
                raise ReportRefused(f"{file} was made with {'; '.join(differing)}: name another --report, or remove it")
            found["settings"]["files"] |= settings["files"]
            found["settings"]["factors"] = sorted({*found["settings"]["factors"], *settings["factors"]})
            self._document = found
        self._document["calls"].append(call)
        self._save()

    @property
    def document(self) -> dict[str, Any]:
        return self._document

    def find(self, place: Place) -> dict[str, Any] | None:
        row: dict[str, Any] | None = self._document["rows"].get(place.key)
        return row if row is not None and "failed" not in row else None

    def done(self) -> frozenset[str]:
        """Keys that need no further call; what failed is tried again."""
        return frozenset(key for key, row in self._document["rows"].items() if "failed" not in row)

    def add(self, place: Place, figures: dict[str, Any]) -> None:
        call = len(self._document["calls"]) - 1
        self._document["rows"][place.key] = {**asdict(place), **figures, "call": call}
        self._save()

    def _save(self) -> None:
        scratch = self._file.with_name(f".{self._file.name}.new")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(orjson.dumps(self._document, option=orjson.OPT_INDENT_2))
        os.replace(scratch, self._file)


def settings_of(load: Load, cores: int, files: dict[str, str]) -> dict[str, Any]:
    """What all rows of a report share. `files` are the digests of the networks."""
    return {**asdict(load), "factors": list(load.factors), "cores": cores, "files": files}


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A network may join a report; one that is there must be the same file. So may rates."""
    texts = [
        f"{name} {old[name]}, now {new[name]}"
        for name in new
        if name not in ("files", "factors") and old.get(name) != new[name]
    ]
    shared = old["files"].keys() & new["files"].keys()
    return texts + [f"another {name}.onnx" for name in sorted(shared) if old["files"][name] != new["files"][name]]
