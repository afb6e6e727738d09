"""Segmenters from ONNX files. Promises: class numbers are read in any order of dimensions; doubt is assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saccade.export.convert.answer_heads import answer_head
from saccade.export.errors import SourceError
from saccade.export.network import NetworkRequest
from saccade.export.sources import load_network
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec
from tests.support.network_requests import source_spec
from tests.support.onnx_files import table_file

WIDTH, HEIGHT = 16, 8
IDS = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
SCORES = np.random.default_rng(1).uniform(-3, 3, (3, HEIGHT, WIDTH)).astype(np.float32)


def net(folder: Path, table: NDArray[Any], end: str = "Identity", name: str = "out") -> Path:
    return table_file(folder / "net.onnx", {name: table}, size=(WIDTH, HEIGHT), ends={name: end})


def told(
    path: Path, outputs: dict[str, Any] | None = None, task: Task | None = None, labels: int | None = None
) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs or {}})
    return recognised(signs_of(path, words), words, task, labels)


def origin_of(found: Recognition, word: str) -> str:
    return next(each.origin for each in found.findings if each.word == word)


def mask_of(path: Path, classes: int) -> Any:
    preprocess = PreprocessSpec(width=WIDTH, height=HEIGHT, fit="stretch")
    request = NetworkRequest(
        source_spec("onnx"), path, TaskSpec(task=Task.SEGMENT), classes, preprocess, Normalisation()
    )
    network = load_network(request)
    with torch.no_grad():
        raw = network.module(torch.zeros(2, 3, HEIGHT, WIDTH))
        return answer_head(network, request.task, classes, request.preprocess, raw)(raw)[0][1].numpy()


@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize("is_channel_last", [False, True])
def test_class_numbers_of_one_channel_are_the_mask(tmp_path: Path, kind: type[Any], is_channel_last: bool) -> None:
    path = net(tmp_path, np.expand_dims(IDS.astype(kind), 2 if is_channel_last else 0))

    np.testing.assert_array_equal(mask_of(path, 3), IDS)
    assert origin_of(told(path), "outputs") == ("said" if kind is np.int64 else "assumed")
    with pytest.raises(SourceError, match="class number per pixel, which has no scores: leave out"):
        told(path, {"scores": "sigmoid"})


def test_channels_behind_are_known_by_the_proportions_of_the_picture(tmp_path: Path) -> None:
    path = net(tmp_path, SCORES.transpose(1, 2, 0))

    np.testing.assert_array_equal(mask_of(path, 3), SCORES.argmax(0))


@pytest.mark.parametrize(
    ("table", "end", "origin"),
    [(SCORES, "Identity", "assumed"), (SCORES, "Sigmoid", "assumed"), (IDS, "Identity", "said")],
)
def test_a_task_that_only_the_shape_tells_is_assumed(tmp_path: Path, table: Any, end: str, origin: str) -> None:
    assert origin_of(told(net(tmp_path, table, end)), "task") == origin


def test_one_choice_per_pixel_says_that_the_file_segments(tmp_path: Path) -> None:
    raised = np.exp(SCORES)

    assert origin_of(told(net(tmp_path, raised / raised.sum(0))), "task") == "said"


@pytest.mark.parametrize(("end", "origin"), [("Softmax", "said"), ("Sigmoid", "assumed"), ("Identity", "assumed")])
def test_the_task_of_a_row_of_numbers_is_assumed_unless_they_are_one_choice(
    tmp_path: Path, end: str, origin: str
) -> None:
    assert origin_of(told(net(tmp_path, SCORES[:, 0, 0], end)), "task") == origin


@pytest.mark.parametrize(
    ("table", "end", "text"),
    [
        (SCORES, "Tanh", "colours or directions: the graph of 'out' .* ends in Tanh"),
        (SCORES, "Relu", "features or amounts: none of the numbers of 'out' "),
        (SCORES[:1], "Exp", "never negative, so it is neither a probability nor a raw score"),
    ],
)
def test_numbers_that_are_no_scores_of_classes_are_refused(tmp_path: Path, table: Any, end: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        told(net(tmp_path, table, end))


def test_the_task_that_a_refusal_names_is_believed(tmp_path: Path) -> None:
    path = net(tmp_path, SCORES, "Tanh")

    with pytest.raises(SourceError, match=r"write `task: {task: segment}` and `labels` only if its numbers are scores"):
        told(path)
    assert told(path, task=Task.SEGMENT, labels=3).task.task is Task.SEGMENT


def test_a_foreground_without_a_channel_is_refused_with_the_shape_to_export(tmp_path: Path) -> None:
    path = net(tmp_path, SCORES[0], "Sigmoid")

    with pytest.raises(SourceError, match=r"export it as \(batch, 1, h, w\) if it is a mask of the foreground"):
        told(path)
    with pytest.raises(SourceError, match="would be class numbers and holds others"):
        told(path, task=Task.SEGMENT, labels=2)
