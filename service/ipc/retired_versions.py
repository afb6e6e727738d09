"""Decides when the series of versions that left go: eight at a time, once eight others have left after them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Names = tuple[str, str]
"""Model and version, as labels have them."""

_KEPT_VERSIONS = 8  # whose series outlive them at least, so that the next scrape has their last requests
_VERSION_LABELS = ("version", "stable", "candidate")


class RetiredVersions:
    """The versions that are gone and whose series are still there: fifteen at most."""

    def __init__(self) -> None:
        self._left: dict[Names, None] = {}  # the latest last

    @property
    def kept(self) -> Collection[Names]:
        return self._left.keys()

    def came(self, names: Names) -> None:
        """Notes a version that is there, perhaps again."""
        self._left.pop(names, None)

    def left(self, names: Names) -> frozenset[Names]:
        """Notes a version that is gone; returns those whose series go now, mostly none."""
        self._left[names] = None
        if len(self._left) < 2 * _KEPT_VERSIONS:
            return frozenset()
        oldest = frozenset([*self._left][:_KEPT_VERSIONS])
        self._left = {each: None for each in self._left if each not in oldest}
        return oldest


def versions_named(labels: Mapping[str, str]) -> set[Names]:
    """Returns the versions that a series is of: one, two for a pair with a shadow, none for a whole model."""
    model = labels.get("model", "")
    return {(model, labels[name]) for name in _VERSION_LABELS if labels.get(name)}
