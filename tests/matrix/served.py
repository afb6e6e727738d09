"""A served answer beside the published file's. Promises: a real server, real HTTP, the runtime alone as the truth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import orjson

from saccade.export.cli.demo import DemoFailed, Sample, read_samples, running_server
from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.preprocessing import preprocess_into
from saccade.models.contract.specs import Task
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from saccade.service.vision.parameters import Parameters
from tests.matrix.rows import Served

TOLERANCE = 1e-4  # of numbers, relative to the larger of them and 1
_SHOWN_IMAGES = 2
_TIMEOUT_S = 120.0
_READY_WITHIN_S = 300.0  # two-stage detectors warm up for minutes on a core that others use too
_SETTINGS = {
    "SACCADE_API_PROCESSES": "1",
    "SACCADE_DEVICE_THREADS": "1",
    "SACCADE_ALLOW_UNJUDGED": "true",  # random weights have no metric to be judged by
    "SACCADE_DEFAULT_DEADLINE_MS": "60000",
    "SACCADE_HANG_TIMEOUT_MS": "300000",  # the largest networks warm up for half a minute on one core
}


def served_answer(repository: Path, manifest: Manifest) -> Served:
    """Sends sample images to a server on `repository` and compares its answers with those of the same file."""
    samples = read_samples(repository, manifest.task.task)[:_SHOWN_IMAGES]
    expected = [expected_answer(repository, manifest, sample.jpeg) for sample in samples]
    try:
        with (
            _environment(_SETTINGS | {"SACCADE_VARIANT": compared_variant(manifest).name}),
            running_server(repository, _READY_WITHIN_S) as url,
        ):
            found = [_asked(url, manifest, sample) for sample in samples]
    except (DemoFailed, httpx.HTTPError) as error:
        return Served(images=len(samples), items=0, largest_difference=None, problem=str(error) or repr(error))
    gap = Comparison()
    for one, other in zip(expected, found, strict=True):
        gap.compare(one, other, "answer")
    difference = gap.largest if np.isfinite(gap.largest) else None
    if not gap.problem and gap.largest > TOLERANCE:
        gap.problem = f"numbers differ by {gap.largest:.2g}"
    return Served(images=len(samples), items=gap.items, largest_difference=difference, problem=gap.problem)


def compared_variant(manifest: Manifest) -> Variant:
    """fp32, or what else the gate let through: with random weights, near ties can deny it."""
    return manifest.variant("fp32") or manifest.variants[0]


def expected_answer(repository: Path, manifest: Manifest, jpeg: bytes) -> dict[str, Any]:
    """What onnxruntime and the service's rendering make of one image, without any server."""
    variant = compared_variant(manifest)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = repository / manifest.model / str(manifest.version) / variant.file
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    spec = manifest.preprocess
    pixels = np.empty((1, spec.height, spec.width, 3), np.uint8)
    place = preprocess_into(decode_image(jpeg, ImageLimits()), spec, pixels[0])
    outputs = session.run([output.name for output in manifest.answer], {manifest.input.name: pixels})
    answer = prediction_of([array[0] for array in outputs], place, manifest, _parameters(manifest))
    document: dict[str, Any] = orjson.loads(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    return document


class Comparison:
    """Walks two JSON documents; `largest` is the difference of their numbers, `problem` the first other one."""

    def __init__(self) -> None:
        self.items = 0
        self.largest = 0.0
        self.problem = ""

    def compare(self, expected: Any, found: Any, where: str) -> None:
        if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() <= found.keys():
            for name, value in expected.items():
                self.compare(value, found[name], f"{where}.{name}")
        elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
            for index, (one, other) in enumerate(zip(expected, found, strict=True)):
                self.compare(one, other, f"{where}[{index}]")
        elif isinstance(expected, float | int) and isinstance(found, float | int):
            self.items += 1
            self.largest = max(self.largest, abs(expected - found) / max(1.0, abs(expected)))
        elif isinstance(expected, str) and expected == found:
            self.items += 1
        elif not self.problem:
            self.problem = f"{where} is {str(found)[:60]!r} instead of {str(expected)[:60]!r}"


def _parameters(manifest: Manifest) -> Parameters:
    task = manifest.task
    return Parameters(
        top_k=task.top_k,
        # Every row counts: untrained detectors are seldom sure.
        score_threshold=0.0 if task.task.has_boxes else task.score_threshold,
        max_detections=task.max_detections,
        mask_format="rle",
        deadline_ms=1000.0 * _TIMEOUT_S,
        names_deadline=False,
        variant=None,
        allow_cheaper=False,
    )


def _asked(url: str, manifest: Manifest, sample: Sample) -> dict[str, Any]:
    """Raises DemoFailed when the answer is not 200."""
    asked = _parameters(manifest)
    names = {
        Task.CLASSIFY: ("top_k",),
        Task.DETECT: ("score_threshold",),
        Task.INSTANCES: ("score_threshold", "mask_format"),
        Task.SEGMENT: ("mask_format",),
        Task.EMBED: ("encoding",),
        Task.IMAGE: ("image_format",),
    }
    response = httpx.post(
        f"{url}/v1/models/{manifest.model}/predict",
        content=sample.jpeg,
        params={name: str(getattr(asked, name)) for name in names[manifest.task.task]},
        headers={"Content-Type": "image/jpeg"},
        timeout=_TIMEOUT_S,
    )
    if not response.is_success:
        raise DemoFailed(f"the server answered {response.status_code}: {response.text[:200]}")
    prediction: dict[str, Any] = response.json()["predictions"][0]
    return prediction


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
