"""Defines what `check` found as frozen values, and decides from these figures what to complain about."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from saccade.export.data.data_limits import DataLimits
from saccade.export.data.image_split import Split
from saccade.export.recipe import FolderData, Recipe
from saccade.models.contract.specs import Frozen, Task


class SplitFacts(Frozen):
    """Facts of one split. Objects are boxes of detectors, pixels of segmenters, images of the other tasks."""

    name: Split
    source: str  # describes where the pictures come from
    images: int
    used: int  # number of pictures that a run uses, because runs have limits
    repeated: int  # number of pictures that occur in the split twice
    near_repeats: int = 0  # number of pictures that are another of the split, saved again, mirrored or brightened
    near_example: tuple[str, str] | None = None
    sizes: tuple[str, ...]  # the smallest, the most frequent and the largest size, such as 640x480
    size_count: int  # number of different sizes
    objects: tuple[int, ...]  # number of objects by label
    images_with: tuple[int, ...]  # number of images by label
    images_without: int = 0  # number of images without any object
    crowds: int = 0
    unlabelled: int = 0  # number of mask pixels that nobody labelled

    @property
    def different(self) -> int:
        """Returns how many pictures a run uses at most, without those that are there twice."""
        return min(self.used, self.images - self.repeated)


class PairFacts(Frozen):
    """Pictures that two splits have in common; shares are fractions of the smaller split."""

    smaller: Split
    larger: Split
    equal: int
    near: int
    equal_share: float
    near_share: float
    equal_example: tuple[str, str] | None
    near_example: tuple[str, str] | None


class DataReport(Frozen):
    data: str  # path of the data, or a description of generated data
    task: Task
    labels: tuple[str, ...]
    splits: tuple[SplitFacts, ...]
    pairs: tuple[PairFacts, ...] = ()
    slices: dict[str, tuple[int, ...]] = Field(default_factory=dict)  # rows of the test split by slice
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    resolution: str = ""
    seconds: float = 0.0
    images_per_s: float = 0.0


def truth_complaints(task: Task, labels: Sequence[str], split: SplitFacts, background: int | None) -> list[str]:
    """Returns sentences for each reason why a metric on this split's truth would be meaningless."""
    occurring = [class_id for class_id, count in enumerate(split.images_with) if count]
    where = f"split {split.name!r} ({split.source})"
    match task:
        case Task.CLASSIFY if len(labels) > 1 and len(occurring) == 1 and not split.images_without:
            return [
                f"{where} shows only {labels[occurring[0]]!r}, so answering that is always right: add pictures of the "
                "other labels"
            ]
        case Task.EMBED if len(occurring) < 2 or max(split.images_with) < 2:
            largest = pictures_word(max(split.images_with, default=0))
            return [
                f"{where} has {len(occurring)} labels, one with {largest}: a search for pictures of one label needs "
                "two labels, and two pictures of one"
            ]
        case Task.CLASSIFY if not occurring:
            return [f"{where} shows no label in any picture: check that its table belongs to its pictures"]
        case Task.DETECT | Task.INSTANCES if not occurring and split.crowds:
            return [
                f"{where} has crowds alone (iscrowd: 1), which count neither for nor against: mark single objects 0"
            ]
        case Task.DETECT | Task.INSTANCES if not occurring:
            return [f"{where} has no object in any picture: check that its annotations belong to its pictures"]
        case Task.IMAGE if not occurring:
            return [f"{where} has no target to judge by: of every depth, hardly a pixel is known, or all are equal"]
        case Task.SEGMENT if not occurring:
            return [f"{where} has no labelled pixel (every mask is 255 throughout): label them with class ids"]
        case Task.SEGMENT if len(occurring) == 1 and occurring != [background or 0] and len(labels) > 1:
            return [
                f"{where} shows only {labels[occurring[0]]!r} where it is labelled, so a mask of that alone would be "
                "perfect: label the other pixels too, or check that masks hold class ids and 255 for no label"
            ]
        case Task.SEGMENT if occurring == [background or 0] and len(labels) > 1:
            return [
                f"{where} shows only {labels[occurring[0]]!r}, so a network that finds nothing would be perfect: add "
                "pictures with the other labels, or check that masks hold class ids and not 0 and 255"
            ]
    return []


def empty_complaints(task: Task, split: SplitFacts, limits: DataLimits) -> list[str]:
    """Complains of a split of boxes, object masks or depths most of whose pictures have none."""
    share = split.images_without / max(1, split.images)
    if share <= limits.max_empty or not any(split.images_with):
        return []
    if task is Task.IMAGE:
        return [
            f"of {pictures_word(split.images_without)} ({share:.1%}) of split {split.name!r} ({split.source}), hardly "
            "a depth is known, or all are equal: look whether the targets were written in another unit (0 is unknown). "
            f"If so many say nothing, set `limits: {{max_empty: {_above(share)}}}` in `data`"
        ]
    if task not in (Task.DETECT, Task.INSTANCES):
        return []
    return [
        f"{pictures_word(split.images_without)} ({share:.1%}) of split {split.name!r} ({split.source}) have no object: "
        "look whether their annotations were lost, or are named otherwise than their pictures. If so many show "
        f"nothing, set `limits: {{max_empty: {_above(share)}}}` in `data`"
    ]


def truth_notes(task: Task, labels: Sequence[str], split: SplitFacts) -> list[str]:
    absent = [label for label, count in zip(labels, split.images_with, strict=True) if not count]
    notes = []
    if absent and len(absent) < len(labels):
        some = ", ".join(absent[:6]) + (", ..." if len(absent) > 6 else "")
        notes.append(f"split {split.name!r} never shows {some}: nothing is measured of them")
    if task is Task.IMAGE and split.images_without:
        notes.append(
            f"{pictures_word(split.images_without)} of split {split.name!r} do not count: hardly a depth is known, or "
            "all are equal"
        )
    if split.repeated:
        notes.append(f"split {split.name!r} has {pictures_word(split.repeated)} twice, pixel for pixel")
    if split.near_example:
        notes.append(
            f"split {split.name!r} has {pictures_word(split.near_repeats)} that nearly repeat others, such as "
            f"{' and '.join(split.near_example)}: its intervals take each for a picture of its own"
        )
    return notes


def pair_complaints(pair: PairFacts, limits: DataLimits) -> list[str]:
    """Returns complaints about too many pictures in common, each with one pair to look at."""
    where = f"of split {pair.smaller!r} also in split {pair.larger!r}"
    complaints = []
    if pair.equal_example and pair.equal_share > limits.max_shared:
        complaints.append(
            f"{pictures_word(pair.equal)} ({pair.equal_share:.1%}) {where} pixel for pixel, such as "
            f"{' and '.join(pair.equal_example)}, so figures would be flattered: remove them from one split, or set "
            f"`limits: {{max_shared: {_above(pair.equal_share)}}}` in `data`"
        )
    if pair.near_example and pair.near_share > limits.max_near:
        complaints.append(
            f"{pictures_word(pair.near)} ({pair.near_share:.1%}) {where}, saved again, mirrored, turned or brightened, "
            f"such as {' and '.join(pair.near_example)}: put copies and frames of one scene into one split; if a fixed "
            "camera took them, set "
            f"`limits: {{max_near: {_above(pair.near_share)}}}` in `data`"
        )
    return complaints


def pictures_word(count: int) -> str:
    return f"{count:,} picture" + ("" if count == 1 else "s")


def looser_data_limits(recipe: Recipe) -> tuple[str, ...]:
    """Names the limits on data that the recipe loosened, each with both numbers; every report shows them."""
    if not isinstance(recipe.data, FolderData):
        return ()
    usual = DataLimits().model_dump()
    given = recipe.data.limits.model_dump()
    return tuple(
        f"data.limits.{name} {value:g} (default {usual[name]:g})"
        for name, value in given.items()
        if value > usual[name]
    )


def _above(share: float) -> str:
    return f"{min(1.0, share + 0.001):.3f}"
