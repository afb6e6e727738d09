"""`saccade predict --repository`: the answers of the server, without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.images import red_png
from tests.support.server import call_saccade
from tests.support.versions import publish_fake

ENVIRONMENT = {"SACCADE_BACKEND": "fake"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish_fake(tmp_path / "repository", "digits", 1)
    images = tmp_path / "images"
    images.mkdir()
    for red in (10, 20, 30):
        (images / f"{red}.png").write_bytes(red_png(red))
    (images / "notes.txt").write_text("no image")
    return tmp_path


def test_folder_goes_through_the_only_model(folder: Path) -> None:
    result = call_saccade(
        "predict", "--repository", str(folder / "repository"), str(folder / "images"), "--json", environment=ENVIRONMENT
    )

    assert result.returncode == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["10.png", "20.png", "30.png"]
    assert [round(line["prediction"]["classes"][0]["score"] * 255) for line in lines] == [10, 20, 30]
    assert "3 images in" in result.stderr


def test_image_that_fails_is_an_exit_code_of_1(folder: Path) -> None:
    (folder / "images" / "20.png").write_bytes(b"broken")

    result = call_saccade(
        "predict", "--repository", str(folder / "repository"), str(folder / "images"), environment=ENVIRONMENT
    )

    assert result.returncode == 1
    assert "1 failed" in result.stderr
    assert len(result.stdout.splitlines()) == 3


def test_parameters_are_checked_against_the_model(folder: Path) -> None:
    result = call_saccade(
        "predict",
        "--repository",
        str(folder / "repository"),
        "-p",
        "score_threshold=0.5",
        str(folder / "images"),
        environment=ENVIRONMENT,
    )

    assert result.returncode == 1
    assert "does not apply to a classify model" in result.stderr


def test_several_models_need_a_name(folder: Path) -> None:
    publish_fake(folder / "repository", "letters", 1)
    places = ("--repository", str(folder / "repository"), str(folder / "images"))

    unnamed = call_saccade("predict", *places, environment=ENVIRONMENT)
    named = call_saccade("predict", "--model", "letters", *places, environment=ENVIRONMENT)

    assert unnamed.returncode == 1
    assert "say --model" in unnamed.stderr
    assert named.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("--repository", ".", "--label", "stable", "x"), ("http://127.0.0.1:9", "digits"), ("--model", "a", "b")],
)
def test_wrong_usage_is_an_exit_code_of_2(arguments: tuple[str, ...]) -> None:
    assert call_saccade("predict", *arguments).returncode == 2
