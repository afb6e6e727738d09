"""Matches names of folders and categories with labels by name, or by order when the recipe asks for it."""

from __future__ import annotations

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from saccade.export.errors import DataRefused
from saccade.models.contract.specs import Task

_MOST_NAMES = 6
_NOTHING = ("background", "bg", "none", "noobject", "nothing")  # as plain names


def plain_name(name: str) -> str:
    """Returns a name without case, spaces and underscores, composed as one system or another may write it."""
    return unicodedata.normalize("NFC", name).casefold().replace(" ", "").replace("_", "")


def ids_by_name(names: Iterable[str], labels: Sequence[str], where: str) -> dict[str, int]:
    """Returns class ids by name. Raises DataRefused naming what matches no label, or one label twice."""
    exact, plain = _ids_of(labels, str), _ids_of(labels, plain_name)
    found: dict[str, int] = {}
    taken: dict[int, str] = {}
    names = list(names)
    unknown = [name for name in names if name not in exact and plain_name(name) not in plain]
    if unknown:
        raise DataRefused(_unknown_sentence(unknown, names, labels, where))
    for name in names:
        ids = exact.get(name) or plain[plain_name(name)]
        if len(ids) > 1:
            raise DataRefused(
                f"{where}: {name!r} fits the labels {', '.join(str(each) for each in ids)}, which are all "
                f"{labels[ids[0]]!r}: give each its own name in `labels`"
            )
        if ids[0] in taken:
            raise DataRefused(
                f"{where}: {taken[ids[0]]!r} and {name!r} are both label {labels[ids[0]]!r}: make them one"
            )
        found[name] = ids[0]
        taken[ids[0]] = name
    return found


def ids_in_order(names: Sequence[str], labels: Sequence[str], where: str) -> dict[str, int]:
    """Returns class ids by position, as `order: sorted` asks. Raises DataRefused when the numbers differ."""
    if len(names) != len(labels):
        raise DataRefused(
            f"{where} has {len(names)} classes ({_some(names)}), and the recipe has {len(labels)} labels "
            f"({_some(labels)}): `order: sorted` needs as many"
        )
    return {name: class_id for class_id, name in enumerate(names)}


def ensure_labels_differ(labels: Sequence[str]) -> None:
    """Raises DataRefused when two labels have the same name."""
    doubled = [ids for ids in _ids_of(labels, plain_name).values() if len(ids) > 1]
    if doubled:
        first, second = doubled[0][:2]
        raise DataRefused(
            f"labels {first} and {second} are {labels[first]!r} and {labels[second]!r}: give each its own name"
        )


def ensure_no_background_label(task: Task, labels: Sequence[str]) -> None:
    """Raises DataRefused for a detector whose first or last label is no thing that it could find."""
    if task not in (Task.DETECT, Task.INSTANCES):
        return
    for number in (0, len(labels) - 1):
        if plain_name(labels[number]) in _NOTHING:
            raise DataRefused(
                f"labels.{number} is {labels[number]!r}, which no detector answers: leave it out of `labels`. A "
                "network that has a column of scores for it is not served as it is: export it with its softmax and "
                "without that column. Only `outputs: {layout: detr}` takes one away, which must be the last column"
            )


def _ids_of(labels: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = defaultdict(list)
    for class_id, label in enumerate(labels):
        ids[key(label)].append(class_id)
    return dict(ids)


def _unknown_sentence(unknown: Sequence[str], names: Sequence[str], labels: Sequence[str], where: str) -> str:
    near = difflib.get_close_matches(unknown[0], labels, n=1)
    hint = f", perhaps {near[0]!r} is meant" if near else ""
    rest = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    inorder = ", or write `order: sorted` in `data` if sorted names are classes 0, 1, ..."
    return (
        f"{where}: {unknown[0]!r}{rest} is none of the {len(labels)} labels ({_some(labels)}){hint}: rename it, or set "
        f"`labels`{inorder if len(names) == len(labels) else ''}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
