"""Prints what `check` found: what data is there, what is wrong with it, and what to write instead."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from saccade.export.data.data_notes import ALL_DENIED
from saccade.export.data.data_report import DataReport, SplitFacts, pictures_word
from saccade.models.contract.specs import Task

_MOST_LABELS = 20  # most rows that are printed; --json lists all labels
_OBJECTS = {
    Task.CLASSIFY: "images",
    Task.DETECT: "objects",
    Task.SEGMENT: "share of labelled pixels",
    Task.INSTANCES: "objects",
    Task.EMBED: "images",
    Task.IMAGE: "images",
}


def print_data(console: Console, report: DataReport) -> None:
    """Prints splits, labels, what was left out, what pictures splits share, and the verdict."""
    read = sum(split.images for split in report.splits)
    speed = f", read in {report.seconds:.1f} s ({report.images_per_s:,.0f} images/s)" if report.images_per_s else ""
    is_picture = report.task is Task.IMAGE
    labels = "" if is_picture else f"{len(report.labels)} labels, "
    _say(console, f"data: {report.data} ({report.task.value}, {labels}{read:,} images{speed})")
    is_labelled = any(any(split.images_with) for split in report.splits)
    if read and is_labelled:
        console.print(_split_table(report))
        if not is_picture:
            console.print(_label_table(report))
    elif read:
        counts = (f"{split.name} {split.images:,} of {split.source} ({_sizes(split)})" for split in report.splits)
        lacking = "no picture has a target" if is_picture else "no label is shown"
        _say(console, f"{lacking}; pictures: {'; '.join(counts)}")
    if report.slices:
        _say(console, f"slices of test: {', '.join(f'{name} {len(rows):,}' for name, rows in report.slices.items())}")
    for text in report.skipped:
        _say(console, text)
    if read:
        _print_pairs(console, report)
    for text in report.notes:
        _say(console, f"note: {text}")
    if report.resolution:
        _say(console, f"resolution: {report.resolution}")
    for text in report.complaints:
        _say(console, f"refused: {text}", "red")
    if any(note.startswith(ALL_DENIED) for note in report.notes):
        _say(console, f"data: can be read, but {ALL_DENIED} (see the note)", "yellow")
    elif not report.complaints:
        _say(console, "data: ok", "green")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, markup=False, soft_wrap=True, style=style)


def _split_table(report: DataReport) -> Table:
    table = Table(title="Splits", title_justify="left", title_style="bold")
    for header in ("split", "pictures of", "picture sizes"):
        table.add_column(header)
    for header in ("images", "used in a run", *_object_headers(report)):
        table.add_column(header, justify="right")
    for split in report.splits:
        table.add_row(
            split.name,
            split.source,
            _sizes(split),
            f"{split.images:,}",
            f"{split.used:,}",
            *_object_cells(report, split),
        )
    return table


def _object_headers(report: DataReport) -> tuple[str, ...]:
    match report.task:
        case Task.CLASSIFY | Task.EMBED | Task.IMAGE:
            return ()
        case Task.DETECT | Task.INSTANCES:
            return "objects", "crowds", "images without"
        case Task.SEGMENT:
            return ("unlabelled (255)",)


def _object_cells(report: DataReport, split: SplitFacts) -> tuple[str, ...]:
    match report.task:
        case Task.CLASSIFY | Task.EMBED | Task.IMAGE:
            return ()
        case Task.DETECT | Task.INSTANCES if split.objects:
            return f"{sum(split.objects):,}", f"{split.crowds:,}", f"{split.images_without:,}"
        case Task.SEGMENT if split.objects:
            return (f"{split.unlabelled / max(1, split.unlabelled + sum(split.objects)):.1%}",)
    return ("",) * len(_object_headers(report))


def _sizes(split: SplitFacts) -> str:
    if not split.sizes:
        return ""
    smallest, usual, largest = split.sizes
    if split.size_count == 1:
        return smallest
    return f"{smallest} to {largest}, most {usual}"


def _label_table(report: DataReport) -> Table:
    """Lists labels in the order of their ids; if there are too many, those that are rarest in the test split."""
    table = Table(title=f"Labels ({_OBJECTS[report.task]})", title_justify="left", title_style="bold")
    table.add_column("label")
    for split in report.splits:
        table.add_column(split.name, justify="right")
    test = report.splits[-1]
    ids = list(range(len(report.labels)))
    if len(ids) > _MOST_LABELS:
        ids = sorted(sorted(ids, key=lambda class_id: test.objects[class_id])[:_MOST_LABELS])
    for class_id in ids:
        table.add_row(report.labels[class_id], *(_label_cell(report.task, split, class_id) for split in report.splits))
    if len(ids) < len(report.labels):
        table.caption = f"the {len(ids)} of {len(report.labels)} labels that {test.name} shows least; --json lists all"
        table.caption_justify = "left"
    return table


def _label_cell(task: Task, split: SplitFacts, class_id: int) -> str:
    if task is Task.SEGMENT:
        return f"{split.objects[class_id] / max(1, sum(split.objects)):.1%} in {split.images_with[class_id]:,} images"
    if task.has_boxes:
        return f"{split.objects[class_id]:,} in {split.images_with[class_id]:,} images"
    return f"{split.objects[class_id]:,}"


def _print_pairs(console: Console, report: DataReport) -> None:
    shared = [pair for pair in report.pairs if pair.equal or pair.near]
    if report.pairs and not shared:
        _say(console, "overlap: no picture of a split is in another, nor saved again, nor mirrored")
    for pair in shared:
        example = pair.equal_example or pair.near_example
        such = f", such as {example[0]} and {example[1]}" if example else ""
        _say(
            console,
            f"overlap: {pictures_word(pair.equal)} ({pair.equal_share:.1%}) of {pair.smaller} also in {pair.larger} "
            f"pixel for pixel, {pair.near:,} ({pair.near_share:.1%}) saved again, mirrored, turned or brightened{such}",
        )
