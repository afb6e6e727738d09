"""Checks a recipe's data before conversion: reads every picture once and reports all complaints together."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from saccade.export.data.bad_boxes import WrongForm, judge_bad_boxes, judge_reaching_boxes, wrong_form
from saccade.export.data.data_notes import (
    calibration_notes,
    loose_notes,
    metric_of,
    resolution_of,
    size_notes,
    test_notes,
    trust_notes,
)
from saccade.export.data.data_report import (
    DataReport,
    PairFacts,
    SplitFacts,
    empty_complaints,
    looser_data_limits,
    pair_complaints,
    pictures_word,
    truth_complaints,
    truth_notes,
)
from saccade.export.data.digit_data import ensure_digits_known, ensure_instances_disjoint
from saccade.export.data.findings import Findings, readable
from saccade.export.data.folder_data import Listing, image_limit, list_pictures
from saccade.export.data.image_split import Split
from saccade.export.data.nearest_pictures import THUMBNAIL_SIDE
from saccade.export.data.overlap import Fingerprints, near_repeats, overlap_of
from saccade.export.data.reading import Fault, PictureFacts, read_pictures
from saccade.export.data.slices import slice_rows
from saccade.export.data.split_sources import SplitSource
from saccade.export.errors import DataRefused
from saccade.export.qualification.corrupted_pictures import missing_library
from saccade.export.recipe import DigitScenes, FolderData, LoadedRecipe
from saccade.models.contract.specs import Task
from saccade.service.vision.image_decoder import USUAL_LIMITS

ORDER: tuple[Split, ...] = ("train", "calibration", "tuning", "test")
Told = Callable[[int, int], None]  # arguments: pictures read, pictures in all


_MAX_CONTRADICTIONS = 0.01  # share of a split's pictures; large sets have a few that were labelled twice


@dataclass(slots=True)
class _Tally:
    """Counts what is found while a split is read."""

    name: Split
    source: SplitSource
    most: int | None  # most images that are read; None when the recipe sets no limit
    labels: int
    task: Task
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)  # number of objects or pixels by class
    images_with: Counter[int] = field(default_factory=Counter)  # number of images by class
    images_without: int = 0
    crowds: int = 0
    unlabelled: int = 0
    # Of each picture only this is kept, in few large pieces, so that a large set needs a kilobyte per picture.
    paths: list[Path] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: bytearray = field(default_factory=bytearray)
    classes: dict[bytes, tuple[bytes, Path]] = field(default_factory=dict)  # by pixels: classes, and the first picture
    contradictions: list[tuple[Path, Path]] = field(default_factory=list)  # equal pictures of different classes

    def takes(self, facts: PictureFacts) -> bool:
        return self.source.holds_byte(facts.first_byte) and (self.most is None or len(self.paths) < self.most)

    def add(self, facts: PictureFacts) -> None:
        self.sizes[facts.size] += 1
        classes = facts.class_ids.tolist()
        self.objects.update(dict(zip(classes, facts.class_counts.tolist(), strict=True)))
        self.images_with.update(classes)
        self.images_without += not classes
        self.crowds += facts.crowds
        self.unlabelled += facts.unlabelled
        self.paths.append(facts.path)
        self.digests.append(facts.pixels_sha256)
        self.thumbnails += facts.thumbnail.tobytes()
        if self.task in (Task.CLASSIFY, Task.EMBED):
            ids, first = self.classes.setdefault(facts.pixels_sha256, (facts.class_ids.tobytes(), facts.path))
            if ids != facts.class_ids.tobytes():
                self.contradictions.append((first, facts.path))

    def facts(self, used: int) -> SplitFacts:
        prints = self.prints()
        # the train split is not measured on, so copies in it flatter nothing
        near, pair = near_repeats(prints) if self.name in ("tuning", "test") else (0, None)
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        shown = [by_area[0], self.sizes.most_common(1)[0][0], by_area[-1]] if by_area else []
        return SplitFacts(
            name=self.name,
            source=str(self.source),
            images=len(self.paths),
            used=min(used, len(self.paths)),
            repeated=len(prints.digests) - len(set(prints.digests)),
            near_repeats=near,
            near_example=_named(pair),
            sizes=tuple(f"{width}x{height}" for width, height in shown),
            size_count=len(self.sizes),
            objects=tuple(self.objects[label] for label in range(self.labels)),
            images_with=tuple(self.images_with[label] for label in range(self.labels)),
            images_without=self.images_without,
            crowds=self.crowds,
            unlabelled=self.unlabelled,
        )

    def tell_contradictions(self, findings: Findings) -> None:
        if not self.contradictions:
            return
        first, second = (readable(str(path)) for path in self.contradictions[0])
        share = len(self.contradictions) / len(self.paths)
        text = (
            f"{pictures_word(len(self.contradictions))} ({share:.1%}) of split {self.name!r} equal one of another "
            f"label, such as {first} and {second}: one of the two labels is wrong"
        )
        tell = findings.complain if share > _MAX_CONTRADICTIONS else findings.note
        tell(text, text)

    def prints(self) -> Fingerprints:
        """Returns views, which copy nothing."""
        shape = (-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
        return Fingerprints(self.paths, self.digests, np.frombuffer(self.thumbnails, np.uint8).reshape(shape))


def check_data(loaded: LoadedRecipe, told: Told) -> DataReport:
    """Reads the data and returns a report that holds the complaints; never raises for faulty data."""
    data = loaded.recipe.data
    found = _check_digits(loaded, data) if isinstance(data, DigitScenes) else _check_folder(loaded, data, told)
    missing = missing_library(loaded)
    return found.model_copy(update={"complaints": (*found.complaints, missing)}) if missing else found


def ensure_good(report: DataReport, recipe: str) -> None:
    """Raises DataRefused with the complaints of a report."""
    if report.complaints:
        more = f" (`saccade-export check {recipe}` prints it all)" if len(report.complaints) > 1 else ""
        raise DataRefused("; ".join(report.complaints) + more)


def _check_folder(loaded: LoadedRecipe, data: FolderData, told: Told) -> DataReport:
    recipe, root, findings, start = loaded.recipe, loaded.beside(data.path), Findings(), time.perf_counter()
    splits: list[SplitFacts] = []
    pairs: list[PairFacts] = []
    slices: dict[str, tuple[int, ...]] = {}
    total = 0
    try:
        listing = list_pictures(
            recipe.task.task,
            recipe.labels,
            data,
            root,
            findings,
            multi_label=recipe.task.multi_label,
            needs_labels=recipe.gate.needs_labels,
            spec=recipe.task,
        )
        tallies = [
            _Tally(name, listing.sources[name], data.max_images.get(name), len(recipe.labels), recipe.task.task)
            for name in ORDER
            if name in listing.sources
        ]
        total = _read(listing, tallies, loaded, data, findings, told)
        splits = [tally.facts(image_limit(data, tally.name)) for tally in tallies]
        for tally in tallies:
            tally.tell_contradictions(findings)
        pairs = [_pair_facts(*pair) for pair in itertools.combinations(tallies, 2) if _may_compare(*pair)]
        _judge(loaded, data, splits, pairs, findings)
        test = next(tally.paths for tally in tallies if tally.name == "test")[: image_limit(data, "test")]
        slices = _slices(loaded, data, listing, test, findings)
    except (DataRefused, OSError) as error:
        findings.complain(str(error), str(error))
    seconds = time.perf_counter() - start
    return DataReport(
        data=str(root),
        task=recipe.task.task,
        labels=recipe.labels,
        splits=tuple(splits),
        pairs=tuple(pairs),
        slices=slices,
        skipped=findings.skipped,
        notes=findings.notes,
        complaints=findings.complaints,
        resolution=resolution_of(loaded, splits),
        seconds=round(seconds, 2),
        images_per_s=round(total / seconds, 1),
    )


def _read(
    listing: Listing,
    tallies: Sequence[_Tally],
    loaded: LoadedRecipe,
    data: FolderData,
    findings: Findings,
    told: Told,
) -> int:
    """Fills the tallies and returns how many pictures were read."""
    folders = {folder: _limited(listing, folder, tallies) for folder in listing.pictures}
    total, read = sum(folders.values()), 0
    limits = USUAL_LIMITS.for_network(loaded.recipe.preprocess)
    for folder, most in folders.items():
        takers = [tally for tally in tallies if tally.source.folder == folder]
        boxes = bad = reaching = 0
        first_bad = first_reaching = ""
        forms: Counter[WrongForm] = Counter()
        for found in read_pictures(listing.pictures[folder][:most], limits):
            read += 1
            told(read, total)
            if isinstance(found, Fault):
                findings.complain(found.kind, found.sentence)
                continue
            boxes, bad = boxes + int(found.class_counts.sum()) + found.bad_boxes, bad + found.bad_boxes
            forms.update(found.forms)
            reaching += found.reaching_boxes
            if found.is_turn_unsure:
                findings.note(
                    "a turn that nobody can tell",
                    f"{found.path} is turned by EXIF and its target is not, and its size does not tell whether the "
                    "target was written upright: look at both, or save such pictures upright",
                )
            first_bad, first_reaching = first_bad or found.first_bad, first_reaching or found.first_reaching
            for tally in takers:
                if tally.takes(found):
                    tally.add(found)
        where, form = folder or "the set", wrong_form(forms, boxes)
        bad += judge_reaching_boxes(where, reaching, bad, boxes, first_reaching, form, findings)
        first = first_bad or first_reaching
        judge_bad_boxes(where, bad, boxes, first, data.limits.max_bad_boxes, findings, form)
    return read


def _limited(listing: Listing, folder: str, tallies: Sequence[_Tally]) -> int:
    """Returns how many pictures of a folder are read: all, unless every split that it feeds has its own limit."""
    takers = [tally for tally in tallies if tally.source.folder == folder]
    count = len(listing.pictures[folder])
    if not takers:
        return 0
    if any(tally.most is None or not tally.source.is_whole for tally in takers):
        return count
    return min(count, max(tally.most or 0 for tally in takers))


def _may_compare(first: _Tally, second: _Tally) -> bool:
    return not first.source.shares_with(second.source)


def _pair_facts(first: _Tally, second: _Tally) -> PairFacts:
    smaller, larger = sorted((first, second), key=lambda tally: len(tally.paths))
    found = overlap_of(smaller.prints(), larger.prints())
    count = max(1, len(smaller.paths))
    return PairFacts(
        smaller=smaller.name,
        larger=larger.name,
        equal=found.equal,
        near=found.near,
        equal_share=found.equal / count,
        near_share=found.near / count,
        equal_example=_named(found.equal_pair),
        near_example=_named(found.near_pair),
    )


def _named(pair: tuple[Path, Path] | None) -> tuple[str, str] | None:
    return None if pair is None else (readable(str(pair[0])), readable(str(pair[1])))


def _judge(
    loaded: LoadedRecipe, data: FolderData, splits: Sequence[SplitFacts], pairs: Sequence[PairFacts], findings: Findings
) -> None:
    recipe = loaded.recipe
    for split in splits:
        if not split.images and findings.complaints:
            continue  # pictures of this split were already reported as complaints
        if not split.images:
            text = f"split {split.name!r} ({split.source}) holds no picture: add some, or give every split a folder"
            findings.complain(text, text)
            continue
        if split.name in ("tuning", "test"):
            if recipe.gate.needs_labels:
                task = recipe.task
                texts = truth_complaints(task.task, recipe.labels, split, task.background_id)
                for text in (*texts, *empty_complaints(task.task, split, data.limits)):
                    findings.complain(text, text)
            for text in truth_notes(recipe.task.task, recipe.labels, split):
                findings.note(text, text)
    enough = (*calibration_notes(loaded, splits), *test_notes(loaded, splits), *trust_notes(loaded, splits))
    for text in (*enough, *size_notes(loaded), *loose_notes(loaded)):
        findings.note(text, text)
    for text in (text for pair in pairs for text in pair_complaints(pair, data.limits)):
        findings.complain(text, text)
    for limit in looser_data_limits(recipe):
        text = f"the recipe asks for less than the defaults: {limit}"
        findings.note(text, text)


def _slices(
    loaded: LoadedRecipe, data: FolderData, listing: Listing, test: Sequence[Path], findings: Findings
) -> dict[str, tuple[int, ...]]:
    """Returns the rows of the test pictures of each slice. Complains where the gate could judge none."""
    if data.slices is None:
        return {}
    slices = slice_rows(loaded, data.slices, listing.pictures, test, findings)
    needed = loaded.recipe.gate.test_images_limit(metric_of(loaded))
    sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in slices.items() if len(rows) < needed)
    if sizes:
        text = f"slices of fewer than {needed} test pictures are not judged: {sizes}"
        tell = findings.complain if all(len(rows) < needed for rows in slices.values()) else findings.note
        tell(text, text)
    return slices


def _check_digits(loaded: LoadedRecipe, data: DigitScenes) -> DataReport:
    """Checks only the recipe's labels, because generated scenes are correct by construction."""
    recipe = loaded.recipe
    complaints = list(_digit_complaints(loaded, data))
    splits = [
        SplitFacts(
            name=name,
            source="generated",
            images=data.images[name],
            used=data.images[name],
            repeated=0,
            sizes=(),
            size_count=0,
            objects=(),
            images_with=(),
        )
        for name in ORDER
        if name in data.images
    ]
    return DataReport(
        data="generated scenes of handwritten digits",
        task=recipe.task.task,
        labels=recipe.labels,
        splits=tuple(splits),
        notes=(*trust_notes(loaded, splits), *size_notes(loaded)),
        complaints=tuple(complaints),
        resolution=resolution_of(loaded, splits),
    )


def _digit_complaints(loaded: LoadedRecipe, data: DigitScenes) -> Iterator[str]:
    task = loaded.recipe.task
    if task.task is Task.IMAGE and loaded.recipe.gate.needs_labels:
        if task.picture == "depth":
            yield "digit scenes have no depths: name a folder of your own pictures in `data`"
        elif task.scale == 1 and not data.noise:
            yield "digit scenes are their own targets: write how strong the noise is, as in `data: {noise: 25}`"
    try:
        ensure_digits_known(loaded.recipe.task, loaded.recipe.labels)
        for first, second in itertools.combinations([name for name in ORDER if name in data.images], 2):
            ensure_instances_disjoint(first, second)
    except DataRefused as error:
        yield str(error)
