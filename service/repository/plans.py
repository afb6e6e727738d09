"""Stores TensorRT plans. A plan appears whole or not at all, and a plan whose bytes changed is refused.

The layout of the directory is described in `models/contract/plans.py`. With a secret, every record carries an HMAC in
`plan.hmac`, and a plan without a valid one is refused; the record holds the plan's digest. Without a secret, the
operator must let nobody else write there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from saccade.models.contract.plans import (
    LAYERS_FILE,
    PLAN_FILE,
    PLAN_RECORD,
    TIMING_CACHE,
    PlanError,
    PlanKey,
    PlanRecord,
    differences,
    plan_record_bytes,
    plan_record_from,
)
from saccade.models.contract.specs import ModelName, VariantName
from saccade.service.errors import PlanRefused, RepositoryError
from saccade.service.repository.confined_files import names_in, opened_directory, read_file, replace_file, write_file
from saccade.service.repository.plan_seal import MOST_SEAL_BYTES, Seal

ENGINES_DIRECTORY = ".engines"  # lies in the repository, where a name with a leading dot is never a model's
SEAL_FILE = "plan.hmac"
TIMING_SEAL_FILE = "timing.hmac"
MOST_RECORD_BYTES = 1024 * 1024
MOST_LAYERS_BYTES = 64 * 1024 * 1024
MOST_TIMING_BYTES = 256 * 1024 * 1024

_SCRATCH, _GONE = ".putting-", ".gone-"
_ABANDONED_S = 6 * 3600.0  # a writer that did not write for so long is dead
_MODEL: TypeAdapter[str] = TypeAdapter(ModelName)
_VARIANT: TypeAdapter[str] = TypeAdapter(VariantName)
_Name = TypeVar("_Name", str, int)
_VERSION: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1)])


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan whose record was read; its bytes are read and checked by `read_plan`."""

    directory: Path
    record: PlanRecord


@dataclass(frozen=True, slots=True)
class Survey:
    """The plans in one version's directory."""

    plans: tuple[StoredPlan, ...]
    problems: tuple[str, ...]  # one line per unusable plan directory


def engines_root(repository: Path) -> Path:
    """The directory of plans when the settings name none."""
    return repository / ENGINES_DIRECTORY


class PlanStore:
    """Plans below one directory, shared by any number of readers and writers."""

    def __init__(self, root: Path, key: bytes | None = None) -> None:
        """`key` is the secret of HMACs, see `plan_seal.engines_secret`; None: HMACs are not checked."""
        self.root = root
        self._seal = Seal(key)

    def find(self, model: str, version: int, variant: str, key: PlanKey) -> StoredPlan | None:
        """The plan that was made for exactly this key. Raises PlanRefused for a damaged plan or one without a valid
        HMAC.
        """
        return self._plan_in(_parts(model, version, variant), key.place, key)

    def all(self, model: str, version: int) -> tuple[StoredPlan, ...]:
        """All usable plans of a version, whatever machine they were made for."""
        return self.survey(model, version).plans

    def survey(self, model: str, version: int) -> Survey:
        """All usable plans of a version, and why the others cannot be used."""
        plans: list[StoredPlan] = []
        problems: list[str] = []
        above = _parts(model, version)
        for variant in _visible(names_in(self.root, above)):
            for place in _visible(names_in(self.root, (*above, variant))):
                try:
                    found = self._plan_in((*above, variant), place, None)
                except PlanRefused as error:
                    problems.append(str(error))
                    continue
                if found is not None:
                    plans.append(found)
        return Survey(tuple(plans), tuple(problems))

    def put(
        self,
        record: PlanRecord,
        plan: bytes,
        layers: bytes | None = None,
        timing_cache: bytes | None = None,
        *,
        replace: bool = False,
    ) -> StoredPlan:
        """Adds a plan in one rename. An existing plan of the same key stays, unless `replace` is set.

        Raises RepositoryError when it cannot be written, and then leaves nothing behind; PlanRefused when the record
        has another digest than `plan`.
        """
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256 or len(plan) != record.plan_bytes:
            raise PlanRefused(f"the record of {_named(record)} is of other bytes than the plan; build it again")
        parts = _parts(record.model, record.version, record.variant)
        try:
            with opened_directory(self.root, parts, create=True) as directory:
                _sweep(directory, time.time())
                scratch = f"{_SCRATCH}{os.urandom(8).hex()}"
                try:
                    self._write(directory, scratch, record, plan, layers, timing_cache)
                    self._move(directory, scratch, record, replace=replace)
                finally:
                    _remove_tree(scratch, directory)
        except OSError as error:
            raise RepositoryError(
                f"cannot keep the plan of {_named(record)} ({len(plan) / 1e6:.1f} MB) in {self.root}: "
                f"{error.strerror or error}; make room or choose another directory for engines"
            ) from error
        found = self._plan_in(parts, record.key.place, record.key)
        if found is None:
            raise RepositoryError(f"the plan of {_named(record)} was removed from {self.root} while it was put there")
        return found

    def update_record(self, stored: StoredPlan, record: PlanRecord, layers: bytes | None = None) -> StoredPlan:
        """Replaces `plan.json`, after a gate decided. `layers` is the inspector's layer information.

        Raises PlanRefused when the record belongs to another plan.
        """
        before = stored.record
        if (record.key, record.plan_sha256) != (before.key, before.plan_sha256):
            raise PlanRefused(f"the new record of {_named(before)} is of another plan; put that one instead")
        content = plan_record_bytes(record)
        try:
            with opened_directory(self.root, _parts_of(before)) as at:
                if layers is not None:
                    replace_file(at, LAYERS_FILE, layers)
                if self._seal.is_asked:
                    # The seal holds both HMACs for a moment, so that no reader finds a record before its HMAC.
                    replace_file(at, SEAL_FILE, self._seal.of(plan_record_bytes(before), content))
                replace_file(at, PLAN_RECORD, content)
                if self._seal.is_asked:
                    replace_file(at, SEAL_FILE, self._seal.of(content))
        except OSError as error:
            raise RepositoryError(
                f"cannot write the record of {_named(record)} in {stored.directory}: {error.strerror or error}"
            ) from error
        return StoredPlan(stored.directory, record)

    def read_plan(self, stored: StoredPlan) -> bytes:
        """The plan's bytes, checked against the record's digest. Raises PlanRefused."""
        record = stored.record
        try:
            with opened_directory(self.root, _parts_of(record)) as directory:
                content = read_file(directory, PLAN_FILE, record.plan_bytes)
        except OSError as error:
            raise PlanRefused(
                f"cannot read the plan in {stored.directory}: {error.strerror or error}; {_again(record)}"
            ) from error
        if len(content) != record.plan_bytes:
            raise PlanRefused(
                f"the plan in {stored.directory} has {len(content)} bytes, its record says {record.plan_bytes}: "
                f"it is truncated; {_again(record)}"
            )
        found = hashlib.sha256(content).hexdigest()
        if found != record.plan_sha256:
            raise PlanRefused(
                f"the plan in {stored.directory} has SHA-256 {found[:12]}…, its record says "
                f"{record.plan_sha256[:12]}…: it was changed after it was built; {_again(record)}"
            )
        return content

    def read_layers(self, stored: StoredPlan) -> bytes | None:
        """The inspector's layer information; None where the plan was never opened on a device."""
        return self._content(stored, LAYERS_FILE, MOST_LAYERS_BYTES)

    def newest_timings(self, model: str, variant: str, key: PlanKey) -> bytes:
        """Kernel timings for a build of `key` to start from, of any version of the model; empty without any.

        With a secret, only timings with a valid HMAC are returned, because TensorRT parses them.
        """
        usable = [plan for plan in self._all_versions(model) if _same_machine(plan.record.key, key)]
        for plan in sorted(usable, key=lambda plan: (plan.record.variant != variant, _age(plan.record))):
            content = self._content(plan, TIMING_CACHE, MOST_TIMING_BYTES)
            seal = self._content(plan, TIMING_SEAL_FILE, MOST_SEAL_BYTES) or b""
            if content and self._seal.fits(content, seal):
                return content
        return b""

    def _all_versions(self, model: str) -> Iterator[StoredPlan]:
        for name in names_in(self.root, (_validated(_MODEL, model, "model"),)):
            if name.isascii() and name.isdigit() and str(int(name)) == name and int(name) > 0:
                yield from self.all(model, int(name))

    def _plan_in(self, above: tuple[str, ...], place: str, key: PlanKey | None) -> StoredPlan | None:
        """The plan in one directory; with `key`, only if it was made for that key."""
        path = self.root.joinpath(*above, place)
        try:
            with opened_directory(self.root, (*above, place)) as directory:
                raw = read_file(directory, PLAN_RECORD, MOST_RECORD_BYTES)
                seal = read_file(directory, SEAL_FILE, MOST_SEAL_BYTES) if self._seal.is_asked else b""
        except FileNotFoundError as error:
            if not path.is_dir():
                return None
            raise PlanRefused(f"{path} holds no {error.filename}; {_built_again(*above)}") from error
        except OSError as error:
            raise PlanRefused(f"cannot read {path}: {error.strerror or error}; {_built_again(*above)}") from error
        if not self._seal.fits(raw, seal):
            raise PlanRefused(
                f"the record in {path} does not carry the HMAC of this server's secret: it was changed, or written by "
                f"a builder without SACCADE_ENGINES_KEY_FILE; {_built_again(*above)}"
            )
        try:
            record = plan_record_from(raw)
        except PlanError as error:
            raise PlanRefused(f"{path}: {error}") from error
        if (record.model, str(record.version), record.variant, record.key.place) != (*above, place):
            raise PlanRefused(f"{path} holds the plan of {_named(record)} for {record.key.place}: it was moved there")
        if key is not None and record.key != key:
            raise PlanRefused(f"{path} was made for another key: {'; '.join(differences(key, record.key))}")
        return StoredPlan(path, record)

    def _write(
        self,
        parent: int,
        name: str,
        record: PlanRecord,
        plan: bytes,
        layers: bytes | None,
        timing_cache: bytes | None,
    ) -> None:
        os.mkdir(name, 0o755, dir_fd=parent)
        directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        content = plan_record_bytes(record)
        try:
            write_file(directory, PLAN_FILE, plan)
            if layers is not None:
                write_file(directory, LAYERS_FILE, layers)
            if timing_cache:
                write_file(directory, TIMING_CACHE, timing_cache)
            if timing_cache and self._seal.is_asked:
                write_file(directory, TIMING_SEAL_FILE, self._seal.of(timing_cache))
            if self._seal.is_asked:
                write_file(directory, SEAL_FILE, self._seal.of(content))
            write_file(directory, PLAN_RECORD, content)
            os.fsync(directory)
        finally:
            os.close(directory)

    def _move(self, directory: int, scratch: str, record: PlanRecord, *, replace: bool) -> None:
        """Moves the new plan into its place. An unusable plan there is replaced, too."""
        place = record.key.place
        while True:
            try:
                os.rename(scratch, place, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not replace and self._is_usable(record):
                    return
                _retire(directory, place)
                continue
            os.fsync(directory)
            return

    def _is_usable(self, record: PlanRecord) -> bool:
        try:
            found = self._plan_in(_parts(record.model, record.version, record.variant), record.key.place, record.key)
            return found is not None and bool(self.read_plan(found))
        except PlanRefused:
            return False

    def _content(self, stored: StoredPlan, name: str, most_bytes: int) -> bytes | None:
        try:
            with opened_directory(self.root, _parts_of(stored.record)) as directory:
                return read_file(directory, name, most_bytes)
        except OSError:  # absent, or not a readable file
            return None


def _parts(model: str, version: int, variant: str | None = None) -> tuple[str, ...]:
    """Path parts of a version's plans. Raises PlanRefused for names that no version can have; no other reaches the
    disk.
    """
    above = (_validated(_MODEL, model, "model"), str(_validated(_VERSION, version, "version")))
    return above if variant is None else (*above, _validated(_VARIANT, variant, "variant"))


def _parts_of(record: PlanRecord) -> tuple[str, ...]:
    return (*_parts(record.model, record.version, record.variant), record.key.place)


def _validated(adapter: TypeAdapter[_Name], value: _Name, what: str) -> _Name:
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise PlanRefused(f"{value!r} is no {what}: {error.errors()[0]['msg']}") from error


def _visible(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _named(record: PlanRecord) -> str:
    return f"{record.model}/{record.version} {record.variant}"


def _again(record: PlanRecord) -> str:
    return _built_again(record.model, str(record.version), record.variant)


def _built_again(model: str, version: str, variant: str) -> str:
    return f"run `saccade-export build {model}/{version} --variant {variant} --force`"


def _same_machine(found: PlanKey, wanted: PlanKey) -> bool:
    return (found.runtime, found.runtime_version, found.capabilities) == (
        wanted.runtime,
        wanted.runtime_version,
        wanted.capabilities,
    )


def _age(record: PlanRecord) -> tuple[int, ...]:
    """A sort key that puts the newest record first; ISO 8601 in UTC sorts as text."""
    return tuple(-ord(letter) for letter in record.created)


def _retire(directory: int, place: str) -> None:
    """Renames a plan's directory, then deletes it."""
    gone = f"{_GONE}{os.urandom(8).hex()}"
    try:
        os.rename(place, gone, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError:  # another process removed it first
        return
    _remove_tree(gone, directory)


def _sweep(directory: int, now: float) -> None:
    """Deletes what dead writers left behind."""
    for name in os.listdir(directory):
        if name.startswith((_SCRATCH, _GONE)):
            with suppress(FileNotFoundError):
                if now - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime > _ABANDONED_S:
                    _remove_tree(name, directory)


def _remove_tree(name: str, directory: int) -> None:
    shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
