"""A version over a folder: answers in order and as served, bad images alone, batches of allowed sizes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from saccade.service.cli.offline import OfflineAnswer, OfflineModel, newest_version
from saccade.service.cli.predict_text import summary_of
from saccade.service.errors import RepositoryError
from saccade.service.repository.trusted_keys import NO_SIGNATURES
from saccade.service.settings import Settings
from saccade.service.vision.parameters import DeadlineRule, complete, parse_given
from tests.support.images import POISON_PNG, red_png, scene_jpeg
from tests.support.versions import EXPLANATION, manifest_for, publish, publish_fake, with_extras

RULE = DeadlineRule(1000.0, 1000.0)


@dataclass(frozen=True)
class Given:
    name: str
    content: bytes | None

    def read(self) -> bytes:
        if self.content is None:
            raise FileNotFoundError(2, "No such file or directory")
        return self.content


def answers(
    repository: Path, contents: list[bytes | None], given: dict[str, str] | None = None, **settings: object
) -> tuple[list[OfflineAnswer], OfflineModel]:
    version = newest_version(repository, "digits", None, NO_SIGNATURES)
    options = Settings.model_validate({"backend": "fake", "device_threads": 1, "decode_threads": 2, **settings})
    with closing(OfflineModel(version, options)) as model:
        parameters = complete(parse_given(given or {}, is_text=True), model.manifest, RULE)
        found = model.predict([Given(str(index), content) for index, content in enumerate(contents)], parameters)
        return list(found), model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path, "digits", 1)
    publish_fake(tmp_path, "digits", 2)
    return tmp_path


def top_scores(found: list[OfflineAnswer]) -> list[float]:
    return [round(answer.prediction["classes"][0]["score"] * 255) for answer in found if answer.prediction]


@pytest.mark.parametrize("count", [1, 7, 8, 23])
def test_every_image_gets_its_own_answer_in_order(repository: Path, count: int) -> None:
    reds = [(7 * index) % 250 for index in range(count)]

    found, model = answers(repository, [red_png(red) for red in reds])

    assert [answer.name for answer in found] == [str(index) for index in range(count)]
    assert top_scores(found) == reds
    assert (model.times.images, model.times.failed) == (count, 0)


def test_quality_is_said_as_a_server_says_it(repository: Path) -> None:
    asked, _ = answers(repository, [scene_jpeg(60, 50), red_png(9)], {"quality": "true"})
    plain, _ = answers(repository, [red_png(9)])

    qualities = [answer.prediction["quality"] for answer in asked if answer.prediction]
    assert qualities[0]["score"] > qualities[1]["score"] == 0.0
    assert qualities[1]["reasons"][0].startswith("blurred")
    assert plain[0].prediction is not None
    assert "quality" not in plain[0].prediction


def test_bad_images_fail_alone_and_say_why(repository: Path) -> None:
    found, model = answers(repository, [red_png(10), b"no image", None, POISON_PNG, red_png(50)])

    assert [bool(answer.prediction) for answer in found] == [True, False, False, False, True]
    assert top_scores(found) == [10, 50]
    assert found[1].error
    assert "No such file" in found[2].error
    assert "asked to fail" in found[3].error
    assert model.times.failed == 3


def test_newest_version_answers_unless_another_is_named(repository: Path) -> None:
    assert newest_version(repository, "digits", None, NO_SIGNATURES).manifest.version == 2
    assert newest_version(repository, "digits", "1", NO_SIGNATURES).manifest.version == 1
    with pytest.raises(RepositoryError, match=r"no 'digits/7' .* digits/1, digits/2"):
        newest_version(repository, "digits", "7", NO_SIGNATURES)


@pytest.mark.parametrize("task", list(Task))
def test_every_task_answers(tmp_path: Path, task: Task) -> None:
    publish_fake(tmp_path, "digits", 1, task)

    found, _ = answers(tmp_path, [red_png(200)])

    assert found[0].prediction is not None
    assert (found[0].prediction["width"], found[0].prediction["height"]) == (32, 32)


def test_explanations_come_with_the_answers_that_ask(tmp_path: Path) -> None:
    publish(tmp_path, with_extras(manifest_for("digits", 1), EXPLANATION))

    found, _ = answers(tmp_path, [red_png(200), POISON_PNG, red_png(7)], {"explain": "grid"})

    assert [bool(answer.prediction and answer.prediction["explanation"]) for answer in found] == [True, False, True]
    assert top_scores(found) == [200, 7]


def test_a_vector_without_direction_fails_alone_and_the_others_have_their_line(tmp_path: Path) -> None:
    publish_fake(tmp_path, "digits", 1, Task.EMBED)

    found, model = answers(tmp_path, [red_png(200), red_png(0), red_png(7)])

    assert [bool(answer.prediction) for answer in found] == [True, False, True]
    assert "all zeros" in found[1].error
    assert model.times.failed == 1
    assert found[0].prediction is not None
    assert summary_of(found[0].prediction).startswith("3 numbers, float32: 200.0000")
