"""`saccade predict` against a real server: patterns, drawings and formats; a bad picture never ends a folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, image_of, red_png
from tests.support.server import Server, call_saccade

SIDE = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures with a bad one between them."""
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(image_of((204, 100, 200), SIDE, SIDE)))
    (root / "b.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (root / "c.png").write_bytes(encoded(image_of((153, 100, 200), SIDE, SIDE)))
    return root


def test_patterns_are_matched_where_the_shell_did_not(server: Server, folder: Path) -> None:
    result = call_saccade("predict", server.base_url, "classifier", str(folder / "*.png"), "--json")

    assert result.returncode == 0, result.stderr
    assert [Path(answer["image"]).name for answer in json.loads(result.stdout)] == ["a.png", "c.png"]


@pytest.mark.parametrize("model", ["classifier", "detector", "segmenter", "instances"])
def test_pictures_are_drawn_with_their_answers(server: Server, folder: Path, tmp_path: Path, model: str) -> None:
    drawn = tmp_path / "deep" / "drawn"

    result = call_saccade("predict", server.base_url, model, str(folder), "--draw", str(drawn))

    assert result.returncode == 1  # b.jpg
    assert sorted(path.name for path in drawn.iterdir()) == ["a.png", "c.png"]
    for name in ("a.png", "c.png"):
        before, after = (np.asarray(Image.open(place / name)) for place in (folder, drawn))
        assert before.shape == after.shape
        assert (before != after).any()


def test_pictures_of_one_name_are_drawn_apart(server: Server, folder: Path, tmp_path: Path) -> None:
    call_saccade(
        "predict", server.base_url, "detector", *[str(folder / "a.png")] * 2, "--draw", str(tmp_path / "drawn")
    )

    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a-2.png", "a.png"]


def test_csv_keeps_the_place_of_what_failed(server: Server, folder: Path) -> None:
    result = call_saccade("predict", server.base_url, "detector", str(folder), "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert result.returncode == 1
    assert [Path(row["image"]).name for row in rows if row["problem"]] == ["b.jpg"]
    assert {Path(row["image"]).name for row in rows} == {"a.png", "b.jpg", "c.png"}


@pytest.mark.parametrize(("form", "model"), [("coco", "instances"), ("labelstudio", "segmenter")])
def test_masks_go_to_other_programs(server: Server, folder: Path, form: str, model: str) -> None:
    result = call_saccade("predict", server.base_url, model, str(folder / "a.png"), "--format", form)

    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    if form == "coco":
        assert document["annotations"][0]["segmentation"]["size"] == [SIDE, SIDE]
    else:
        assert document[0]["predictions"][0]["result"][0]["type"] == "brushlabels"


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "xml"],
        ["--format", "csv", "--json"],
        ["--format", "coco", "-p", "mask_format=none"],
        ["--format", "coco"],  # of labels of whole pictures
        ["-p", "model=other"],
        ["-p", "deadline_ms=soon"],
    ],
)
def test_wrong_options_exit_2(server: Server, folder: Path, options: list[str]) -> None:
    result = call_saccade("predict", server.base_url, "classifier", str(folder / "a.png"), *options)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [["--draw", "drawn"], ["--format", "csv"]])
def test_drawings_and_formats_need_a_server(repository: Path, folder: Path, options: list[str]) -> None:
    result = call_saccade("predict", "--repository", str(repository), "--model", "detector", str(folder), *options)

    assert result.returncode == 2


def test_the_key_may_be_in_the_environment(server: Server, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(red_png(7))

    result = call_saccade(
        "predict", server.base_url, "classifier", str(tmp_path), environment={"SACCADE_CLIENT_KEY": "not asked for"}
    )

    assert result.returncode == 0, result.stderr
