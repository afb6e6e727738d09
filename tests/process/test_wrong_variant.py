"""A variant that this machine computes wrongly: the next best one serves, unless the variant was named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.models.contract.replay import REPLAY_FILE, Arrays, replay_bytes
from tests.support.graphs import classifier_graph, slowed
from tests.support.images import red_png
from tests.support.server import running_server
from tests.support.versions import SIDE, manifest_for, publish, with_costs, with_files, with_variants

RED = 200


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def publish_wrong(repository: Path, *wrong: str) -> None:
    """int8-cpu is the fastest; the recorded answers of the wrong variants are not those of the fake backend."""
    picture = np.full((1, SIDE, SIDE, 3), RED, np.uint8)
    names = ("fp32", "int8-cpu", "int8-slow")
    answers: dict[str, Arrays] = {
        name: [np.full((1, 10), RED / 255 - 0.5 * (name in wrong), np.float32), np.arange(10)[None]] for name in names
    }
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 100), int8_cpu=(0.94, 300), int8_slow=(0.94, 50))
    files = {"model.onnx": b"weights", REPLAY_FILE: replay_bytes(picture, answers)}
    publish(repository, with_files(manifest, files), files=files)


@pytest.mark.parametrize("ladder", ["off", "auto"])
def test_what_answers_wrongly_here_is_passed_over_with_its_reason(
    repository: Path, tmp_path: Path, ladder: str
) -> None:
    wrong = {"off": ("int8-cpu",), "auto": ("fp32", "int8-cpu")}[ladder]  # all levels of the ladder
    publish_wrong(repository, *wrong)
    serves = {"off": "fp32", "auto": "int8-slow"}[ladder]
    with running_server(repository, tmp_path, ladder=ladder) as server:
        answer = server.predict("digits", red_png(RED))
        assert (answer.status_code, answer.json()["variant"]) == (200, serves)
        found = server.wait_state("digits", 1, "ready")
        assert f"{serves} " in found["choice"]
        assert "int8-cpu cannot serve here: its answers to 1 recorded pictures differ here" in found["choice"]
        assert found["reason"] == ""
        (told,) = server.events("variant_passed_over")
        assert told["variant"] in wrong
        assert "differ here" in told["reason"]


def test_what_is_measured_as_faster_and_answers_wrongly_is_passed_over(repository: Path, tmp_path: Path) -> None:
    picture = np.full((1, SIDE, SIDE, 3), RED, np.uint8)
    answers = {"int8-cpu": [np.zeros((1, 10), np.float32), np.arange(10)[None]]}
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 200), int8_cpu=(0.94, 100))
    whole, _ = with_costs(manifest, fp32=0, int8_cpu=0)
    files = {
        "fp32.onnx": slowed(classifier_graph()),
        "int8_cpu.onnx": classifier_graph(),
        REPLAY_FILE: replay_bytes(picture, answers),
    }
    publish(repository, with_files(whole, files), files=files)
    with running_server(repository, tmp_path, backend="onnxruntime", tuning="measure") as server:
        assert server.predict("digits", red_png(RED)).json()["variant"] == "fp32"
        assert server.events("variants_compared")
        assert [told["variant"] for told in server.events("variant_passed_over")] == ["int8-cpu"]


@pytest.mark.parametrize("ladder", ["off", "auto"])
def test_a_version_without_any_right_variant_fails_with_all_reasons(
    repository: Path, tmp_path: Path, ladder: str
) -> None:
    publish_wrong(repository, "fp32", "int8-cpu", "int8-slow")
    with running_server(repository, tmp_path, ladder=ladder, wait=False) as server:
        found = server.wait_state("digits", 1, "failed")
        assert all(f"{name}: its answers" in found["reason"] for name in ("fp32", "int8-cpu", "int8-slow"))


def test_a_named_variant_that_answers_wrongly_fails_the_version(repository: Path, tmp_path: Path) -> None:
    publish_wrong(repository, "int8-cpu")
    with running_server(repository, tmp_path, variant="int8-cpu", wait=False) as server:
        found = server.wait_state("digits", 1, "failed")
        assert "choose another variant" in found["reason"]
        assert server.events("variant_passed_over") == []
