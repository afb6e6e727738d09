"""Lists a store around keys that no path can stand for: what lies beside such a key is found all the same.

A key such as `classifier//5/manifest.json`, or one with a control character, fails every listing that would show it,
and obstore cannot skip it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from saccade.service.repository.object_store.contents import StoredObject
from saccade.service.repository.object_store.store import InvalidKey, Store
from saccade.service.repository.open import RefusedDirectory

_DEPTH = 2  # model, version: what is wrong within a version hides that version alone


@dataclass(slots=True)
class Listing:
    """The objects that could be listed, and what could not. A prefix has a slash at its end; "" is the repository's."""

    objects: list[StoredObject] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # by the prefix below which there is a key that is no path
    hidden: set[str] = field(default_factory=set)  # those prefixes below which other objects could not be listed either

    def hides(self, model: str, version: int) -> bool:
        """Whether a version that is not listed may be there all the same."""
        return not self.hidden.isdisjoint(("", f"{model}/", f"{model}/{version}/"))

    @property
    def problem(self) -> str:
        """What is wrong beside the models; it keeps nothing from being listed."""
        return self.reasons.get("", "")

    @property
    def refused(self) -> tuple[RefusedDirectory, ...]:
        """The models and versions in which there is a key that is no path."""
        parts = [(prefix.partition("/"), reason) for prefix, reason in sorted(self.reasons.items()) if prefix]
        return tuple(RefusedDirectory(model, name.rstrip("/"), reason) for (model, _, name), reason in parts)


def listing(store: Store, prefix: str = "", known_models: Collection[str] = ()) -> Listing:
    """Everything below a prefix in one listing; where a key spoils that, part by part. Raises StoreUnreadable.

    Where keys beside the models and within one spoil it together, those that are known are listed one by one.
    """
    found = Listing()
    _list(store, prefix, found, known_models)
    return found


def _list(store: Store, prefix: str, found: Listing, known_models: Collection[str] = ()) -> None:
    try:
        found.objects += store.objects(prefix)
    except InvalidKey as error:
        if prefix.count("/") < _DEPTH:
            _list_parts(store, prefix, found, error, known_models)
        else:
            found.reasons[prefix] = str(error)
            found.hidden.add(prefix)


def _list_parts(store: Store, prefix: str, found: Listing, reason: InvalidKey, known_models: Collection[str]) -> None:
    try:
        objects, below = store.level(prefix)
    except InvalidKey:
        found.reasons[prefix] = str(reason)
        try:
            # An empty name sorts before "0", and so before every name of a model or version.
            found.objects += store.objects(prefix, after=f"{prefix}0")
        except InvalidKey:  # there is another one
            if not prefix and not known_models:
                raise InvalidKey(f"{reason}; until then the store lists no model") from None
            found.hidden.add(prefix)
            for model in () if prefix else sorted(known_models):
                _list(store, f"{model}/", found)
        return
    found.objects += objects
    for each in below:
        _list(store, each, found)
