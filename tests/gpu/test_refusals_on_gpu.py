"""Plans that must not be opened here: each is refused by name, and the process goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD, PlanRecord, plan_record_bytes, plan_record_from
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError, PlanRefused
from tests.gpu.conftest import Plans, copied, toy_images

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.fixture
def request_with_copy(plans: Plans, tmp_path: Path) -> LoadRequest:
    """A good plan that a test may spoil."""
    request = plans.request("fp16")
    assert request.plan_dir is not None
    shutil.copytree(request.plan_dir, tmp_path / "plan")
    return replace(request, plan_dir=tmp_path / "plan")


def record_of(request: LoadRequest) -> PlanRecord:
    assert request.plan_dir is not None
    return plan_record_from((request.plan_dir / PLAN_RECORD).read_bytes())


def with_key(request: LoadRequest, **changes: object) -> LoadRequest:
    """The record speaks of another plan."""
    record = record_of(request)
    assert request.plan_dir is not None
    changed = record.model_copy(update={"key": record.key.model_copy(update=changes)})
    (request.plan_dir / PLAN_RECORD).write_bytes(plan_record_bytes(changed))
    return request


def truncated(request: LoadRequest) -> LoadRequest:
    assert request.plan_dir is not None
    content = (request.plan_dir / PLAN_FILE).read_bytes()
    (request.plan_dir / PLAN_FILE).write_bytes(content[: len(content) // 2])
    return request


def truncated_and_vouched_for(request: LoadRequest) -> LoadRequest:
    """As if the builder itself had written half a plan: only TensorRT can notice."""
    record, spoilt = record_of(request), truncated(request)
    assert spoilt.plan_dir is not None
    content = (spoilt.plan_dir / PLAN_FILE).read_bytes()
    update = {"plan_sha256": hashlib.sha256(content).hexdigest(), "plan_bytes": len(content)}
    (spoilt.plan_dir / PLAN_RECORD).write_bytes(plan_record_bytes(record.model_copy(update=update)))
    return spoilt


SPOILT: dict[str, tuple[Callable[[LoadRequest], LoadRequest], type[BackendError], str]] = {
    "another GPU": (lambda request: with_key(request, capabilities=("SM75",)), PlanRefused, "SM75"),
    "another TensorRT": (lambda request: with_key(request, runtime_version="0.0.1"), PlanRefused, r"0\.0\.1"),
    "truncated": (truncated, PlanRefused, "bytes"),
    "truncated by its builder": (truncated_and_vouched_for, BackendError, "plan|open|build"),
    "changed ONNX": (lambda request: replace(request, sha256="0" * 64), PlanRefused, "000000000000"),
    "missing batch size": (lambda request: replace(request, allowed_batch_sizes=(1, 2, 4, 8)), PlanRefused, "8"),
    "no record": (lambda request: replace(request, plan_dir=Path("absent")), PlanRefused, "absent"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_plan_that_does_not_fit_is_refused_by_name_and_a_good_one_still_opens(
    plans: Plans, request_with_copy: LoadRequest, case: str
) -> None:
    spoil, error, words = SPOILT[case]

    with pytest.raises(error, match=words) as refused:
        load_backend("tensorrt", spoil(request_with_copy))

    assert "saccade-export build" in str(refused.value), "the message says what to do"
    good = plans.load("fp16")
    assert len(copied(good.infer(toy_images(2)))) == 2
    good.close()
