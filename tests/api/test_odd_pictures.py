"""Odd pictures on the whole way: over HTTP, from a folder without a server, and as labelled data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saccade.export.data.folder_data import folder_samples
from saccade.export.data.image_split import prepare_split
from saccade.export.recipe import FolderData
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Task
from tests.support.images import image_files, red_of
from tests.support.odd_pictures import REFUSED, TAKEN
from tests.support.problems import is_problem
from tests.support.server import Server, call_saccade
from tests.support.versions import manifest_for

LEVELS = 2
SPEC = manifest_for("classifier", 1).preprocess


def expected_red(kind: str) -> int:
    """What the fake backend answers with: the first pixel of the model's input."""
    return int(preprocess(TAKEN[kind][1], SPEC)[0, 0, 0])


@pytest.mark.parametrize("kind", TAKEN)
def test_odd_picture_is_answered(server: Server, kind: str) -> None:
    data, pixels = TAKEN[kind]

    response = server.predict("classifier", data)

    assert response.status_code == 200, response.text
    prediction = response.json()["predictions"][0]
    assert (prediction["width"], prediction["height"]) == (pixels.shape[1], pixels.shape[0])
    assert abs(red_of(prediction) - expected_red(kind)) <= LEVELS


@pytest.mark.parametrize("kind", REFUSED)
def test_unusable_picture_is_refused_in_plain_words(server: Server, kind: str) -> None:
    data, words = REFUSED[kind]

    detail = is_problem(server.predict("classifier", data), 422)["detail"]

    assert words in detail
    assert "object at" not in detail


def test_lost_pixels_are_said_and_others_are_not_warned_of(server: Server) -> None:
    files = image_files(TAKEN["missing restart marker"][0], TAKEN["sampled 4x1"][0])

    damaged, whole = server.client.post("/v1/models/classifier/predict", files=files).json()["predictions"]

    assert "parts of the picture may be lost" in damaged["warning"]
    assert "warning" not in whole


def test_folder_of_odd_pictures_is_answered_to_its_end(repository: Path, tmp_path: Path) -> None:
    pictures = TAKEN | REFUSED
    names = {
        f"{index:02d}.{'jpg' if pictures[kind][0][:2] == bytes((255, 216)) else 'png'}": kind
        for index, kind in enumerate(pictures)
    }
    for name, kind in names.items():
        (tmp_path / name).write_bytes(pictures[kind][0])

    done = call_saccade(
        "predict",
        "--repository",
        str(repository),
        "--model",
        "classifier",
        "--json",
        str(tmp_path),
        environment={"SACCADE_BACKEND": "fake"},
    )

    answers = {Path(line["image"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(answers) == sorted(names)
    for name, kind in names.items():
        if kind in TAKEN:
            assert abs(red_of(answers[name]["prediction"]) - expected_red(kind)) <= LEVELS, kind
        else:
            assert REFUSED[kind][1] in answers[name]["error"]
    assert "warning" in answers[next(name for name in names if names[name] == "missing restart marker")]["prediction"]
    assert done.returncode == 1  # some were refused


def test_data_set_has_the_pixels_that_are_served(tmp_path: Path) -> None:
    kinds = list(TAKEN)
    for index, kind in enumerate(kinds):
        folder = tmp_path / "test" / f"c{index:02d}"
        folder.mkdir(parents=True)
        (folder / "picture.jpg").write_bytes(TAKEN[kind][0])
    for split in ("calibration", "tuning"):
        (tmp_path / split).mkdir()
    labels = [f"c{index:02d}" for index in range(len(kinds))]

    samples, _ = folder_samples(
        Task.CLASSIFY, labels, FolderData(dataset="folder", path=str(tmp_path)), tmp_path, "test"
    )
    split = prepare_split("test", samples, SPEC)

    assert len(split.images) == len(kinds)
    for sample, image in zip(split.samples, split.images, strict=True):
        assert np.abs(image.astype(int) - preprocess(TAKEN[kinds[sample.class_id]][1], SPEC)).max() <= LEVELS
