"""Decides what a copy of an object store should hold: which versions to fetch, which to drop, which to refuse.

Pure: listings, sizes and times come in, decisions go out. `mirror.py` carries them out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from saccade.models.contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, MAX_VERSION
from saccade.service.core import VersionKey
from saccade.service.repository.open import RefusedDirectory
from saccade.service.repository.serving_document import SERVING_NAME
from saccade.service.repository.signature import SIGNATURE_NAME

LOOKS_UNTIL_GONE = 3  # complete listings in a row without a version, before its copy goes
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # as the manifest allows

Tags = tuple[tuple[str, str, int], ...]
"""Path, ETag and size in bytes of each object of a version: what changes when any of them does."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a store, by its key below the repository's prefix."""

    key: str
    size: int
    tag: str  # ETag; where a store has none, the time of the last change
    is_etag: bool = True  # whether a read can be asked to fail where the object is another one


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """The objects of a version, by their paths inside it. It is published once its manifest is there."""

    key: VersionKey
    objects: Mapping[str, StoredObject]

    @property
    def is_published(self) -> bool:
        return MANIFEST_NAME in self.objects

    @property
    def size_bytes(self) -> int:
        return sum(each.size for each in self.objects.values())

    @property
    def tags(self) -> Tags:
        return tuple(sorted((path, each.tag, each.size) for path, each in self.objects.items()))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds: published versions, documents of desired state by model, and what is named wrongly."""

    versions: Mapping[VersionKey, StoredVersion] = field(default_factory=dict)
    documents: Mapping[str, StoredObject] = field(default_factory=dict)
    refused: tuple[RefusedDirectory, ...] = ()
    begun: Collection[VersionKey] = ()  # numbers that a publisher has taken, without a manifest so far

    def numbers(self, model: str, *, begun: bool = False) -> list[int]:
        """The ascending numbers of a model's published versions, on request with those that are being published."""
        keys = [*self.versions, *(self.begun if begun else ())]
        return sorted({key.version for key in keys if key.model == model})


@dataclass(frozen=True, slots=True)
class Copied:
    """A version of the copy: the tags that its objects had when they were fetched."""

    size_bytes: int
    manifest_tag: str
    signature_tag: str  # empty without a signature
    order: float  # when it was fetched; the least is the oldest
    file_tags: Mapping[str, str] = field(default_factory=dict)  # by path, of the files that the manifest names


@dataclass(frozen=True, slots=True)
class Attempt:
    """A fetch that did not succeed: why, of which objects, and when the next one may begin."""

    tags: Tags
    reason: str
    count: int = 1
    retry_s: float | None = None  # None: not before the objects change


def contents_of(objects: Iterable[StoredObject]) -> Contents:
    """Sorts the objects of a repository. Names that start with a dot are work in progress or samples."""
    files: dict[VersionKey, dict[str, StoredObject]] = {}
    documents: dict[str, StoredObject] = {}
    refused: dict[tuple[str, str], RefusedDirectory] = {}
    for each in objects:
        model, _, rest = each.key.partition("/")
        if model.startswith(".") or not rest:
            continue
        if rest == SERVING_NAME and _MODEL.fullmatch(model):
            documents[model] = each
            continue
        name, _, path = rest.partition("/")
        if not (path and name.isascii() and name.isdigit() and str(int(name)) == name):
            continue
        if not _MODEL.fullmatch(model) or int(name) > MAX_VERSION:
            reason = f"models are named by a-z, 0-9, dots and dashes, versions by numbers up to {MAX_VERSION}"
            refused[model, name] = RefusedDirectory(model, name, reason)
            continue
        files.setdefault(VersionKey(model, int(name)), {})[path] = each
    found = {key: StoredVersion(key, mapping) for key, mapping in files.items()}
    return Contents(
        {key: version for key, version in found.items() if version.is_published},
        documents,
        tuple(refused.values()),
        frozenset(key for key, version in found.items() if not version.is_published),
    )


def wanted(
    contents: Contents,
    named: Collection[VersionKey],
    failed: Collection[VersionKey],
    versions_per_model: int,
) -> list[VersionKey]:
    """The versions that the copy should hold, in the order in which they are fetched.

    Those that documents and pins name come first, then the newest of every model, then the second newest. A failed
    version does not count, as the server does not count it, so that the one before it is there in its place.
    """
    first = sorted((key for key in named if key in contents.versions), key=by_name)
    ranked: list[tuple[int, VersionKey]] = []
    for model in sorted({key.model for key in contents.versions}):
        good = [number for number in reversed(contents.numbers(model)) if VersionKey(model, number) not in failed]
        ranked += [(rank, VersionKey(model, number)) for rank, number in enumerate(good[:versions_per_model])]
    ranked.sort(key=lambda item: (item[0], item[1].model))
    return [*first, *(key for _, key in ranked if key not in first)]


def refusal(version: StoredVersion, bound_bytes: int) -> str | None:
    """Why a version is not fetched, before anything of it is read; None: it may be."""
    manifest = version.objects[MANIFEST_NAME]
    if manifest.size > MAX_MANIFEST_BYTES:
        return f"manifest.json has {manifest.size:,} bytes, allowed are {MAX_MANIFEST_BYTES:,}"
    if version.size_bytes > bound_bytes:
        return (
            f"it has {version.size_bytes / 2**20:,.0f} MiB, SACCADE_REPOSITORY_CACHE_MB allows "
            f"{bound_bytes / 2**20:,.0f} for the whole copy"
        )
    return None


def is_due(version: StoredVersion, attempt: Attempt | None, now_s: float) -> bool:
    """Whether a version may be fetched now: never tried, changed since, or a failure that time may heal."""
    if attempt is None or attempt.tags != version.tags:
        return True
    return attempt.retry_s is not None and attempt.retry_s <= now_s


def failed_again(version: StoredVersion, before: Attempt | None, reason: str, now_s: float) -> Attempt:
    """An attempt that time may heal; each one in a row waits twice as long as the one before."""
    count = before.count + 1 if before is not None and before.tags == version.tags else 1
    wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(count - 1, 10))
    return Attempt(version.tags, reason, count, now_s + wait_s)


def absences(
    before: Mapping[VersionKey, int], copied: Collection[VersionKey], contents: Contents
) -> dict[VersionKey, int]:
    """Counts for how many complete listings in a row each version of the copy was not in the store.

    An empty store counts as one that shows nothing, not as one from which everything was taken.
    """
    if not contents.versions:
        return dict(before)
    return {key: before.get(key, 0) + 1 for key in copied if key not in contents.versions}


def gone(counts: Mapping[VersionKey, int]) -> list[VersionKey]:
    return sorted((key for key, count in counts.items() if count >= LOOKS_UNTIL_GONE), key=by_name)


def by_name(key: VersionKey) -> tuple[str, int]:
    return key.model, key.version


def leaving(
    copied: Mapping[VersionKey, Copied],
    kept: Collection[VersionKey],
    needed_bytes: int,
    bound_bytes: int,
) -> list[VersionKey] | None:
    """Which versions make room for `needed_bytes`: what nobody keeps, the oldest first. None: even all do not."""
    free = bound_bytes - sum(each.size_bytes for each in copied.values())
    found: list[VersionKey] = []
    for key in sorted((key for key in copied if key not in kept), key=lambda key: copied[key].order):
        if free >= needed_bytes:
            break
        found.append(key)
        free += copied[key].size_bytes
    return found if free >= needed_bytes else None


def changed_in_store(version: StoredVersion, copied: Copied) -> str:
    """What to say of a version whose objects were replaced after they were fetched; empty where they were not."""
    fetched = {MANIFEST_NAME: copied.manifest_tag, **copied.file_tags}
    replaced, removed = [], []
    for path, tag in sorted(fetched.items()):
        found = version.objects.get(path)
        if found is None:
            removed.append(path)
        elif tag not in ("", found.tag):  # empty: it was put there by other means
            replaced.append(path)
    if not (replaced or removed):
        return ""
    told = [f"{_first(paths)} {what}" for paths, what in ((replaced, "replaced"), (removed, "removed")) if paths]
    return (
        f"{' and '.join(told)} in the store after it was fetched: what was fetched goes on serving; publish under a "
        "new number, or remove the version and wait until it is gone"
    )


def _first(paths: list[str]) -> str:
    """Names the first of some paths; the manifest is the one that says what the version is."""
    paths = sorted(paths, key=lambda path: path != MANIFEST_NAME)
    return f"{paths[0]} was" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more were"


def has_new_signature(version: StoredVersion, copied: Copied) -> bool:
    """Whether a version was signed, or signed again, after it was fetched."""
    signature = version.objects.get(SIGNATURE_NAME)
    return signature is not None and signature.tag != copied.signature_tag


def may_start(
    contents: Contents | None,
    copied: Collection[VersionKey],
    settled: Collection[VersionKey],
    pinned: Collection[VersionKey],
    *,
    is_unreadable: bool,
    is_late: bool,
) -> bool:
    """Whether a server may begin: with a version of every model, or after a while with what there is.

    copied: versions of the copy. settled: versions that were refused for good; one that is tried again is waited for,
    because a server that lacks a model must not replace one that has it. A pinned version is waited for as long as it
    takes, and a copy of before serves while the store cannot be read or does not answer.
    """
    there = {*copied, *settled}
    if contents is None:
        return (is_unreadable or is_late) and bool(copied) and all(key in copied for key in pinned)
    if any(key in contents.versions and key not in there for key in pinned):
        return False
    models = {key.model for key in contents.versions}
    return models <= {key.model for key in there} or (is_late and bool(copied))
