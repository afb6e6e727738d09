"""Every variant's plan against ONNX Runtime on the CPU, and the precision it really computes in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from saccade.models.contract.specs import Task
from saccade.service.backends.base import Backend, Outputs
from saccade.service.backends.registry import load_backend
from tests.gpu.conftest import NETWORK, Plans, Toy, copied, toy_images
from tests.load.gpu_prepare import VARIANTS, bench_recipe
from tests.support.gpu_machine import ONNXRUNTIME_CUDA

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
COUNT = 64
CLEAR = 0.03  # best score over second best: images that rounding cannot turn


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def backend(plans: Plans, variant: str) -> Iterator[Backend]:
    loaded = plans.load(variant)
    yield loaded
    loaded.close()


def in_batches(backend: Backend, size: int) -> Outputs:
    given = toy_images(COUNT)
    parts = [copied(backend.infer(given[start : start + size])) for start in range(0, COUNT, size)]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def on_cpu(toy: Toy, variant: str) -> Outputs:
    """The same file in ONNX Runtime; fp16 as its emulation."""
    from saccade.export.qualification.serving import open_backend

    backend = open_backend(toy.directory / f"{variant}.onnx", bench_recipe(NETWORK))
    outputs = copied(backend.infer(toy_images(COUNT)))
    backend.close()
    return outputs


def largest_error(variant: str) -> float:
    """The gate's limits. Quantized files round to the next code where sums differ in their last bit."""
    from saccade.export.gate.limits import LOOSEST, GateThresholds

    limits = GateThresholds()
    if variant == "fp32":
        return limits.max_parity_error
    is_half = variant.startswith("fp16")
    return limits.max_half_parity_error if is_half else LOOSEST["max_half_parity_error"]


def assert_close(found: Outputs, expected: Outputs, variant: str) -> None:
    from saccade.export.gate.limits import MIN_AGREEMENT
    from saccade.export.qualification.parity import answer_difference

    difference = answer_difference(found, expected, Task.CLASSIFY)
    clear = expected[0][:, 0] - expected[0][:, 1] >= CLEAR
    assert clear.sum() > COUNT // 3, "most answers must say something"
    assert difference.relative_l2 is not None
    assert difference.relative_l2 <= largest_error(variant)
    assert (found[1][clear, 0] == expected[1][clear, 0]).mean() >= MIN_AGREEMENT["top1"]


@pytest.mark.parametrize("size", NETWORK.batch_sizes)
def test_plan_answers_as_the_cpu_does(toy: Toy, backend: Backend, variant: str, size: int) -> None:
    assert_close(in_batches(backend, size), on_cpu(toy, variant), variant)


def test_plan_computes_in_the_precision_that_it_is_named_after(toy: Toy, backend: Backend, variant: str) -> None:
    from saccade.export.gate.limits import MIN_PRECISION_SHARE
    from saccade.export.variants import TRAITS
    from tests.load.gpu_plans import effective

    backend.infer(toy_images(1))

    found = effective(backend.layer_information(), toy.directory / f"{variant}.onnx", variant)  # type: ignore[attr-defined]  # TensorRtBackend

    precision = TRAITS[variant].precision  # type: ignore[index]  # names of variants
    assert found["unaccounted_layers"] == 0, found
    assert float(str(found["share_in_precision"])) >= MIN_PRECISION_SHARE[precision], found


@pytest.mark.needs(ONNXRUNTIME_CUDA)
def test_onnxruntime_computes_fp32_in_fp32(toy: Toy) -> None:
    """TensorFloat-32 keeps 10 bits of a factor: its error would be near 1e-3, that of other sums is below 1e-5."""
    from saccade.export.qualification.parity import answer_difference

    backend = load_backend("onnxruntime", toy.request("fp32"))
    found = in_batches(backend, 4)
    backend.close()

    difference = answer_difference(found, on_cpu(toy, "fp32"), Task.CLASSIFY)
    assert difference.relative_l2 is not None
    assert difference.relative_l2 < 5e-5


@pytest.mark.needs(ONNXRUNTIME_CUDA)
@pytest.mark.parametrize("form", ["plain", "nhwc_fused"])
@pytest.mark.parametrize("size", NETWORK.batch_sizes)
def test_every_form_of_onnxruntime_answers_as_the_cpu_does(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, form: str, size: int
) -> None:
    from saccade.service.backends import onnxruntime_cuda
    from saccade.service.backends.onnxruntime_forms import NHWC_FUSED, PLAIN

    only = {each.name: each for each in (PLAIN, NHWC_FUSED)}[form]
    monkeypatch.setattr(onnxruntime_cuda, "forms_for", lambda precision: (only,))
    backend: Any = load_backend("onnxruntime", toy.request("fp16"))

    found = in_batches(backend, size)

    assert backend.form.name == form, "it was given up"
    backend.close()
    assert_close(found, on_cpu(toy, "fp16"), "fp16")


@pytest.mark.needs(ONNXRUNTIME_CUDA)
def test_form_of_onnxruntime_is_chosen_by_figures_and_its_stream_is_taken(toy: Toy) -> None:
    with structlog.testing.capture_logs() as logs:
        load_backend("onnxruntime", toy.request("fp16")).close()

    chosen = [entry for entry in logs if entry["event"] == "onnxruntime_form_chosen"]
    assert len(chosen) == 1
    assert chosen[0]["failed"] == {}, chosen
    assert all(speed > 0 for speed in chosen[0]["images_per_s"].values())
    assert "onnxruntime_stream_refused" not in {entry["event"] for entry in logs}


@pytest.mark.needs(ONNXRUNTIME_CUDA)
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_onnxruntime_on_the_gpu_answers_as_the_cpu_does(toy: Toy, name: str) -> None:
    backend = load_backend("onnxruntime", toy.request(name))

    found = in_batches(backend, 4)
    backend.close()

    assert_close(found, on_cpu(toy, name), name)
