"""Tables of several labels per picture. Promises: Roboflow's `_classes.csv` is read, and each fault names its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.findings import Findings
from saccade.export.data.folder_data import folder_samples, list_pictures
from saccade.export.data.labelled_images import LabelsSample
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task

LABELS = ("cat", "big dog", "owl")
DATA = FolderData(path="unused")


def written(root: Path, rows: str, head: str = "filename, owl, Big_Dog, cat") -> Path:
    for split in ("tuning", "calibration", "test"):
        (root / split).mkdir(exist_ok=True)
        (root / split / "_classes.csv").write_text(f"{head}\n{rows if split == 'test' else 'x.png, 0, 0, 1'}\n")
        names = ("a.png", "b.png", "c.png") if split == "test" else ("x.png",)
        for level, name in enumerate(names):
            Image.fromarray(np.full((8, 8, 3), 40 * level, np.uint8)).save(root / split / name)
    return root


def complaints(root: Path) -> tuple[str, ...]:
    findings = Findings()
    list_pictures(Task.CLASSIFY, LABELS, DATA, root, findings, multi_label=True)
    return findings.complaints


def test_a_row_says_every_label_of_its_picture(tmp_path: Path) -> None:
    root = written(tmp_path, "a.png, 1, 0, 1\nb.png, 0, 0, 0\n\nc.png, 0, 1, 0")

    samples, left = folder_samples(Task.CLASSIFY, LABELS, DATA, root, "test", multi_label=True)

    by_picture = {sample.encoded: sample for sample in samples}
    shown = [by_picture[(root / "test" / name).read_bytes()] for name in ("a.png", "b.png", "c.png")]
    assert [sample.class_ids for sample in shown if isinstance(sample, LabelsSample)] == [(0, 2), (), (1,)]
    assert left == 0
    assert LabelsSample(b"", (0, 2)).is_shown(3).tolist() == [True, False, True]


def test_excels_own_line_is_no_head(tmp_path: Path) -> None:
    root = written(tmp_path, "a.png; 1; 0; 1", "filename; owl; Big_Dog; cat")
    table = root / "test" / "_classes.csv"
    table.write_text("sep=;\n" + table.read_text())

    for other in (root / "tuning", root / "calibration"):
        (other / "_classes.csv").write_text("filename;owl;big dog;cat\nx.png;0;0;1\n")

    assert complaints(root) == ()


@pytest.mark.parametrize("between", [";", "\t"])
def test_spreadsheets_may_separate_columns_otherwise(tmp_path: Path, between: str) -> None:
    root = written(tmp_path, "a.png, 1, 0, 1")
    for table in root.glob("*/_classes.csv"):
        table.write_text(table.read_text().replace(",", between))

    samples, _ = folder_samples(Task.CLASSIFY, LABELS, DATA, root, "test", multi_label=True)

    assert [sample.class_ids for sample in samples if isinstance(sample, LabelsSample)] == [(0, 2)]


def test_pictures_without_a_row_are_skipped_and_said(tmp_path: Path) -> None:
    findings = Findings()

    listing = list_pictures(
        Task.CLASSIFY, LABELS, DATA, written(tmp_path, "a.png, 1, 0, 1"), findings, multi_label=True
    )

    assert len(listing.pictures["test"]) == 1
    assert any("2 skipped, in no row of _classes.csv" in text for text in findings.skipped)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("a.png, 1, 0", "line 2: write the file's name and 3 values 0 or 1"),
        ("a.png, 1, 0, yes", "line 2: write the file's name and 3 values 0 or 1"),
        ("a.png, 1, 0, 1\na.png, 1, 0, 1", "line 3: 'a.png' is there more than once"),
        ("d.png, 1, 0, 1", "line 2: 'd.png' is not there"),
    ],
)
def test_a_faulty_row_is_named_with_its_line(tmp_path: Path, rows: str, text: str) -> None:
    assert any(text in complaint for complaint in complaints(written(tmp_path, rows)))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("filename, owl, wolf, cat", "'wolf' is none of the 3 labels"),
        ("filename", "names no labels"),
        ("filename, owl,, cat", "column 3 of its head has no name: remove the column .pandas"),
        ("filename, owl, Big_Dog, cat,", "column 5 of its head has no name"),
    ],
)
def test_a_head_that_is_not_the_recipes_labels_is_refused(tmp_path: Path, head: str, text: str) -> None:
    with pytest.raises(DataRefused, match=text):
        complaints(written(tmp_path, "a.png, 1, 0, 1", head))


def test_the_other_kind_of_classifier_is_named(tmp_path: Path) -> None:
    root = written(tmp_path, "a.png, 1, 0, 1")

    with pytest.raises(DataRefused, match=r"write `task: \{multi_label: true\}`"):
        list_pictures(Task.CLASSIFY, LABELS, DATA, root, Findings())
    (root / "test" / "_classes.csv").unlink()
    with pytest.raises(DataRefused, match=r"_classes\.csv is not there"):
        complaints(root)
