"""What serves and what is built, for every state of a version's plans."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from saccade.models.contract.manifest import Manifest, TargetSupport
from saccade.models.contract.plans import PlanRuntime
from saccade.service.errors import RepositoryError
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.supervisor.engines.candidates import engine_candidates
from saccade.service.supervisor.engines.plan_decision import MAX_ATTEMPTS, PlanFacts, StoredRecord, decide, serves
from tests.unit.service.supervisor.engines.plan_records import (
    BARE,
    DENIED,
    FLOAT,
    H200,
    MANIFEST,
    PASSED,
    WAITING,
    key,
    planned,
    stored,
    variant,
)

TENSORRT: PlanRuntime = "tensorrt"


def situation(*records: StoredRecord, **changes: Any) -> PlanFacts:
    values: dict[str, Any] = {
        "manifest": MANIFEST,
        "wanted_variant": "auto",
        "backend": "auto",
        "device": "cuda:0",
        "facts": H200,
        "stored": records,
        "attempts": {},
        "built_elsewhere": frozenset(),
        "may_build": True,
        "serve_while_building": True,
    }
    return PlanFacts(**{**values, **changes})


def wish(*records: StoredRecord, **changes: Any) -> str | None:
    build = decide(situation(*records, **changes)).build
    return build.variant if build else None


def test_onnx_runtime_serves_while_the_first_plan_is_built() -> None:
    decision = decide(situation())

    assert decision.serve == FLOAT
    assert decision.build is not None
    assert (decision.build.variant, decision.build.key) == ("fp16", key("fp16"))
    assert decision.reason == ""


def test_nothing_serves_meanwhile_where_that_is_not_allowed() -> None:
    decision = decide(situation(serve_while_building=False))

    assert decision.serve is None
    assert decision.build is not None


def test_nothing_serves_meanwhile_when_no_variant_can_bridge_the_time() -> None:
    only_trt = MANIFEST.model_copy(update={"variants": MANIFEST.variants[2:3]})

    decision = decide(situation(manifest=only_trt))

    assert (decision.serve, decision.build.variant if decision.build else None) == (None, "int8-trt")


def test_plan_serves_only_after_its_gate_passed() -> None:
    assert decide(situation(stored("fp16", None))).serve == FLOAT
    assert decide(situation(stored("fp16", WAITING))).serve == FLOAT
    assert decide(situation(stored("fp16", DENIED))).serve == FLOAT
    assert decide(situation(stored("fp16", PASSED))).serve == planned("fp16")


def test_fastest_accepted_plan_serves_whatever_its_name() -> None:
    slow, fast = stored("int8-trt", PASSED, 100.0), stored("fp16", PASSED, 200.0)

    assert decide(situation(slow, fast)).serve == planned("fp16", 200.0)


def test_candidates_are_built_one_after_the_other_until_each_is_settled() -> None:
    assert wish() == "fp16"
    assert wish(stored("fp16", PASSED)) == "int8-trt"
    assert wish(stored("fp16", PASSED), stored("int8-trt", DENIED)) == "int8-trt-sparse24"
    assert wish(*(stored(name, PASSED) for name in ("fp16", "int8-trt", "int8-trt-sparse24"))) is None


def test_plan_that_was_built_ahead_is_measured_before_it_serves() -> None:
    assert wish(stored("fp16", None)) == "fp16"


def test_failing_build_is_given_up_and_the_reason_is_shown() -> None:
    attempts = {"fp16": MAX_ATTEMPTS, "int8-trt": MAX_ATTEMPTS, "int8-trt-sparse24": MAX_ATTEMPTS}

    decision = decide(situation(attempts=attempts))

    assert (decision.serve, decision.build) == (FLOAT, None)
    assert "fp16: not built in 2 attempts" in decision.reason
    assert wish(attempts={"fp16": MAX_ATTEMPTS - 1}) == "fp16"


def test_denied_plans_say_by_what() -> None:
    records = [stored(name, DENIED) for name in ("fp16", "int8-trt", "int8-trt-sparse24")]

    assert "int8-trt: denied by device_metric" in decide(situation(*records)).reason


def test_plan_of_another_tensorrt_or_gpu_or_file_does_not_serve() -> None:
    older = DeviceFacts("NVIDIA H200", "SM90", "tensorrt", "11.3.0.1")
    ada = DeviceFacts("NVIDIA L4", "SM89", "tensorrt", "11.4.0.12")
    changed = key("fp16").model_copy(update={"onnx_sha256": "b" * 64})
    for other in (key("fp16", facts=older), key("fp16", facts=ada), changed):
        assert decide(situation(stored("fp16", PASSED, of=other))).serve == FLOAT


def test_plan_for_several_gpus_serves_on_each_of_them() -> None:
    several = key("fp16").model_copy(update={"capabilities": ("SM80", "SM90")})

    assert serves(several, key("fp16"))
    assert decide(situation(stored("fp16", PASSED, of=several))).serve is not None
    assert not serves(key("fp16").model_copy(update={"capabilities": ("SM80",)}), key("fp16"))


def test_named_variant_is_the_only_one_built() -> None:
    assert [item.name for item in engine_candidates(MANIFEST, "int8-trt", TENSORRT)] == ["int8-trt"]
    assert [item.name for item in engine_candidates(MANIFEST, "fp32", TENSORRT)] == ["fp32"]
    names = [item.name for item in engine_candidates(MANIFEST, "auto", TENSORRT)]
    assert names == ["fp16", "int8-trt", "int8-trt-sparse24"]
    assert engine_candidates(MANIFEST, "int8-cpu", TENSORRT) == ()


def test_denied_variant_is_never_a_candidate() -> None:
    denied = MANIFEST.model_copy(update={"variants": (variant("fp16", "gpu", DENIED, precision="fp16"),)})

    assert engine_candidates(denied, "auto", TENSORRT) == ()


def test_float_variant_is_a_candidate_where_there_is_no_other() -> None:
    plain = MANIFEST.model_copy(update={"variants": MANIFEST.variants[:2]})

    assert [item.name for item in engine_candidates(plain, "auto", TENSORRT)] == ["fp32"]


def bare(name: str, gate: Any, images_per_s: float = 1.0) -> StoredRecord:
    """A plan of ONNX Runtime."""
    return stored(name, gate, images_per_s, key(name, facts=BARE))


def test_without_tensorrt_onnx_runtime_is_measured_in_every_variant_that_it_can_run() -> None:
    decision = decide(situation(facts=BARE))

    assert decision.serve == FLOAT
    assert decision.build is not None
    assert (decision.build.variant, decision.build.key.runtime) == ("fp16", "onnxruntime")
    assert "no TensorRT is installed" in decision.reason
    assert wish(bare("fp16", PASSED), facts=BARE) == "fp32", "int8 and 2:4 are made for TensorRT"
    assert wish(bare("fp16", PASSED), bare("fp32", PASSED), facts=BARE) is None
    assert wish(facts=BARE, backend="onnxruntime") == "fp16"
    assert decide(situation(facts=BARE, backend="onnxruntime")).reason == ""
    assert decide(situation(facts=BARE, serve_while_building=False)).serve == FLOAT, "it is no stand-in here"


def test_fastest_variant_that_passed_in_onnx_runtime_serves() -> None:
    fast, slow = bare("fp16", PASSED, 300.0), bare("fp32", PASSED, 100.0)

    serving = decide(situation(fast, slow, facts=BARE)).serve
    assert serving is not None
    assert (serving.variant, serving.backend, serving.plan_dir) == ("fp16", "onnxruntime", "/engines/fp16")
    assert (serving.file_bytes, serving.images_per_s) == (len(b"weights"), 300.0)
    denied = decide(situation(bare("fp16", DENIED, 300.0), slow, facts=BARE)).serve
    assert denied is not None
    assert (denied.variant, denied.plan_dir) == ("fp32", "/engines/fp32")
    assert decide(situation(stored("fp16", PASSED), facts=BARE)).serve == FLOAT, "that plan is TensorRT's"


def test_tensorrt_that_does_not_know_the_gpu_is_not_tried() -> None:
    problem = "tensorrt_rtx 1.7 does not support SM90; it knows SM80"
    facts = msgspec.structs.replace(BARE, tensorrt="tensorrt_rtx", tensorrt_version="1.7", tensorrt_problem=problem)

    decision = decide(situation(facts=facts))

    assert decision.reason == problem
    assert decision.build is not None
    assert decision.build.key.runtime == "onnxruntime"


def test_missing_tensorrt_leaves_onnx_runtime_serving_and_says_so() -> None:
    without = DeviceFacts("NVIDIA H200", "SM90")

    decision = decide(situation(facts=without))

    assert decision.serve == FLOAT
    assert decision.build is None
    assert "no TensorRT is installed" in decision.reason


def test_missing_tensorrt_refuses_the_version_where_it_was_asked_for() -> None:
    with pytest.raises(RepositoryError, match="SACCADE_BACKEND is tensorrt, but no TensorRT is installed"):
        decide(situation(backend="tensorrt", facts=DeviceFacts("NVIDIA H200", "SM90")))


def test_network_that_tensorrt_does_not_take_is_served_by_onnx_runtime() -> None:
    target = TargetSupport(target="tensorrt", supported=False, reason="RoiAlign in head.pool", fallback="onnxruntime")

    decision = decide(situation(manifest=MANIFEST.model_copy(update={"targets": (target,)})))

    assert (decision.serve, decision.build) == (FLOAT, None)
    assert "RoiAlign in head.pool" in decision.reason


def test_device_without_a_gpu_says_what_is_wrong_with_it() -> None:
    broken = DeviceFacts(tensorrt="tensorrt", tensorrt_version="11.4.0.12", problem="the driver is for CUDA 12.4")

    assert "the driver is for CUDA 12.4" in decide(situation(facts=broken)).reason


def test_no_plan_is_built_where_building_is_off() -> None:
    decision = decide(situation(may_build=False))

    assert (decision.serve, decision.build) == (FLOAT, None)
    assert "SACCADE_BUILD_ENGINES is off" in decision.reason


@pytest.mark.parametrize(("backend", "device"), [("onnxruntime", "cuda:0"), ("auto", "cpu")])
def test_onnx_runtime_alone_asks_for_no_plan(backend: str, device: str) -> None:
    decision = decide(situation(stored("fp16", PASSED), backend=backend, device=device))

    assert decision.serve is not None
    assert (decision.serve.backend, decision.build, decision.reason) == ("onnxruntime", None, "")


def test_version_that_can_never_serve_says_why_in_one_line() -> None:
    only_trt = MANIFEST.model_copy(update={"variants": MANIFEST.variants[2:3]})

    with pytest.raises(RepositoryError, match=r"no variant for device.*int8-trt: denied by device_metric"):
        decide(situation(stored("int8-trt", DENIED, of=key("int8-trt", only_trt)), manifest=only_trt))


def test_sparse_weights_make_another_plan() -> None:
    assert key("int8-trt-sparse24").flags == ("sparse_weights",)
    assert key("int8-trt").flags == ()


def with_metrics(**values: float) -> Manifest:
    """MANIFEST with these metrics, by name with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    variants = tuple(
        item.model_copy(update={"metric": item.metric.model_copy(update={"value": named.get(item.name, 0.5)})})
        for item in MANIFEST.variants
    )
    return MANIFEST.model_copy(update={"variants": variants})


METRICS = with_metrics(fp16=0.95, int8_trt=0.94, int8_trt_sparse24=0.93)
PLANS = (
    stored("fp16", PASSED, 100.0),
    stored("int8-trt", PASSED, 300.0),
    stored("int8-trt-sparse24", PASSED, 310.0),
)


def ladder(*records: StoredRecord, **changes: Any) -> list[str]:
    """The levels that serve."""
    decision = decide(situation(*records, manifest=METRICS, **changes))
    assert decision.serve is not None
    return [decision.serve.variant, *(item.variant for item in decision.cheaper)]


def test_without_a_ladder_one_plan_serves() -> None:
    assert ladder(*PLANS) == ["int8-trt-sparse24"]


def test_with_a_ladder_the_most_accurate_plan_serves_and_faster_ones_stand_below() -> None:
    assert ladder(*PLANS, ladder=None) == ["fp16", "int8-trt"], "2:4 is hardly faster than int8 here"


def test_a_denied_or_unbuilt_plan_is_no_rung() -> None:
    assert ladder(PLANS[0], stored("int8-trt", DENIED, 300.0), ladder=None) == ["fp16"]
    assert ladder(PLANS[1], ladder=None) == ["int8-trt"]


def test_named_variants_are_rungs_in_that_order_and_all_are_built() -> None:
    names = ("fp16", "int8-trt-sparse24")

    assert ladder(*PLANS, ladder=names) == ["fp16", "int8-trt-sparse24"]
    assert wish(ladder=names) == "fp16"
    assert wish(PLANS[0], ladder=names) == "int8-trt-sparse24"
    assert wish(PLANS[0], PLANS[2], ladder=names) is None


def test_a_named_variant_on_top_has_the_others_built_below_it() -> None:
    changes = {"ladder": None, "wanted_variant": "int8-trt"}

    assert wish(PLANS[1], **changes) == "fp16"
    assert ladder(*PLANS, **changes) == ["int8-trt"], "fp16 is not faster, 2:4 hardly"


def test_onnx_runtime_bridges_without_rungs() -> None:
    decision = decide(situation(ladder=None))

    assert (decision.serve, decision.cheaper) == (FLOAT, ())
