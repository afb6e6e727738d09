"""The contract suite of `tests/contract` with backends that run on a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from saccade.models.contract.specs import Task
from saccade.service.backends.base import Backend, PipelinedBackend
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError, PlanRefused, RepositoryError
from saccade.service.repository.plans import PlanStore
from tests.contract.test_backends import (  # noqa: F401  # collected here, with the fixtures below
    GRAPHS,
    Subject,
    images,
    request_for,
    task,
    test_answer_is_the_same_alone_and_in_a_batch,
    test_answer_is_the_same_every_time,
    test_answers_tell_images_apart,
    test_batches_in_flight_are_as_many_as_asked_for,
    test_batches_that_overlap_answer_as_each_alone_would,
    test_file_is_not_read_again_after_its_digest_was_checked,
    test_input_is_left_as_it_was,
    test_outputs_have_the_declared_shapes_and_types,
    test_outputs_survive_the_next_call,
    test_pixels_may_be_staged_while_a_batch_runs,
    test_rows_are_in_request_order,
    test_size_that_was_not_loaded_is_refused_and_harms_nothing,
    test_staging_has_the_shape_of_the_batch,
)
from tests.gpu.conftest import copied, ensured_to_build
from tests.load.gpu_plans import built_plan
from tests.support.gpu_machine import EXPORTER, GPU, ONNXRUNTIME_CUDA, TENSORRTS, GpuMachine
from tests.support.versions import manifest_for, publish

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
ONNXRUNTIME = "onnxruntime"
SIZES = (1, 2, 3, 4, 5)  # that the suite asks for


class GpuSubject(Subject):
    """The suite's own opens plans on a simulated device."""

    def load(self, **changes: object) -> Backend:
        return load_backend(self.name, replace(self.request, **changes))  # type: ignore[arg-type]  # any field


def subject_with_plan(name: str, directory: Path, task: Task, machine: GpuMachine) -> GpuSubject:  # noqa: F811  # not the fixture
    """A task's toy graph as a plan of the named TensorRT."""
    missing = machine.missing((GPU, EXPORTER, name))
    if missing:
        pytest.skip(missing)
    ensured_to_build(name, machine)
    content = GRAPHS[task]()
    manifest = manifest_for("digits", 1, task, content=content, allowed_batch_sizes=SIZES)
    version = publish(directory / "repository", manifest, content)
    plan = built_plan(version, "fp32", name, machine.capability, PlanStore(directory / "engines"))
    asked = request_for(directory, task, content)
    return GpuSubject("tensorrt", replace(asked, device="cuda:0", allowed_batch_sizes=SIZES, plan_dir=plan.directory))


def subject_on_gpu(name: str, directory: Path, task: Task, machine: GpuMachine) -> GpuSubject:  # noqa: F811  # not the fixture
    """The file in ONNX Runtime, or as a plan."""
    if name != ONNXRUNTIME:
        return subject_with_plan(name, directory, task, machine)
    missing = machine.missing((GPU, ONNXRUNTIME_CUDA))
    if missing:
        pytest.skip(missing)
    return GpuSubject(ONNXRUNTIME, replace(request_for(directory, task, GRAPHS[task]()), device="cuda:0"))


@pytest.fixture(params=[ONNXRUNTIME, *TENSORRTS])
def subject(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    task: Task,  # noqa: F811  # the fixture of the suite
    machine: GpuMachine,
) -> Subject:
    return subject_on_gpu(request.param, tmp_path, task, machine)


@pytest.fixture(params=[ONNXRUNTIME, *TENSORRTS])
def pipelined(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    task: Task,  # noqa: F811  # the fixture of the suite
    machine: GpuMachine,
) -> Iterator[PipelinedBackend]:
    subject = subject_on_gpu(request.param, tmp_path, task, machine)
    loaded = cast("PipelinedBackend", subject.load(batches_in_flight=3, allowed_batch_sizes=SIZES))
    yield loaded
    loaded.close()


@pytest.fixture
def backend(subject: Subject) -> Iterator[Backend]:
    loaded = subject.load()
    yield loaded
    loaded.close()


def test_provider_is_the_one_that_really_runs(subject: Subject, backend: Backend) -> None:
    wanted = "CUDAExecutionProvider" if subject.name == ONNXRUNTIME else "tensorrt"

    assert backend.provider.startswith(wanted)


def test_file_with_another_digest_is_refused(subject: Subject) -> None:
    with pytest.raises((RepositoryError, PlanRefused)):
        subject.load(sha256=hashlib.sha256(b"another file").hexdigest())


def test_failed_run_is_a_backend_error_and_the_backend_stays_usable(backend: Backend) -> None:
    before = copied(backend.infer(images(2)))

    with pytest.raises(BackendError):
        backend.infer(images(2)[:, :-1])  # a height that the model does not take

    after = copied(backend.infer(images(2)))
    assert all((one == other).all() for one, other in zip(before, after, strict=True))
