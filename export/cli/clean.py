"""Implements `saccade-export clean`, which frees what the work directory keeps of earlier runs.

Only finished steps and what interrupted ones left behind are ever removed: a published version has neither form.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from saccade.export.artifact import RECORD_NAME
from saccade.export.cli import options
from saccade.export.cli.options import print_json
from saccade.export.errors import ExportError

_FINISHED = re.compile(r"(?P<step>.+)-[0-9a-f]{12}")
_UNFINISHED = re.compile(r"\..+-[0-9a-f]{12}\.(?P<process>\d+)")


@dataclass(frozen=True, slots=True)
class Kept:
    """A directory that a step made, or that an interrupted step left behind."""

    directory: Path
    step: str  # empty: of an interrupted step
    used: float  # when a run made or read it last, seconds since the epoch
    size_bytes: int

    @property
    def model(self) -> str:
        return self.directory.parent.name


@click.command()
@click.argument("models", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="remove every step, so that the next run starts anew")
@click.option("--dry-run", is_flag=True, help="say what would be removed, and remove nothing")
@options.work
@options.as_json
def clean(models: tuple[str, ...], is_all: bool, dry_run: bool, work: Path, as_json: bool) -> None:
    """Removes what the work directory keeps of MODELS, or of all, beyond what each step used last.

    Published versions are never touched.
    """
    held = kept_steps(work, models)
    removed = held if is_all else unneeded(held)
    for each in () if dry_run else removed:
        shutil.rmtree(each.directory)
    freed = _bytes(removed)
    if as_json:
        paths = [str(each.directory) for each in removed]
        print_json({"held_bytes": _bytes(held), "freed_bytes": freed, "removed": paths, "dry_run": dry_run})
        return
    for model in dict.fromkeys(each.model for each in held):
        mine, gone = ([each for each in some if each.model == model] for some in (held, removed))
        print(f"{model}: {len(mine)} steps, {_size(_bytes(mine))}; {len(gone)} not needed, {_size(_bytes(gone))}")
    print(f"{'would free' if dry_run else 'freed'} {freed:,} bytes of {_bytes(held):,} in {work}")


def kept_steps(work: Path, models: Sequence[str] = ()) -> list[Kept]:
    """Lists what steps made, by model and name. Raises ExportError while an export writes to the directory."""
    found: list[Kept] = []
    for directory in sorted(work.glob("*/*")):
        if directory.is_symlink() or not directory.is_dir() or (models and directory.parent.name not in models):
            continue
        finished, unfinished = _FINISHED.fullmatch(directory.name), _UNFINISHED.fullmatch(directory.name)
        if unfinished and _is_running(int(unfinished["process"])):
            raise ExportError(
                f"an export is writing {directory} (process {unfinished['process']}): clean when it is done"
            )
        if unfinished:
            found.append(Kept(directory, "", 0.0, _size_of(directory)))
        elif finished and (directory / RECORD_NAME).is_file():
            used = (directory / RECORD_NAME).stat().st_mtime
            found.append(Kept(directory, finished["step"], used, _size_of(directory)))
    return found


def unneeded(held: Iterable[Kept]) -> list[Kept]:
    """Returns all but the directory that each model's step used last."""
    last: dict[tuple[str, str], Kept] = {}
    for each in sorted(held, key=lambda one: one.used):
        if each.step:
            last[each.model, each.step] = each
    return [each for each in held if each not in last.values()]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def _size_of(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def _bytes(held: Iterable[Kept]) -> int:
    return sum(each.size_bytes for each in held)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
