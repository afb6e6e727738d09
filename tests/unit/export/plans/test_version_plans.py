"""Plans of a published version. Promises: from verified bytes, stored whole, the gate left open, every end named."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from onnx import TensorProto, helper

from saccade.export.errors import BuildCancelled, DeviceError, RecipeError
from saccade.export.plans import version_plans
from saccade.export.plans.tensorrt_from_onnx import PlanReport, build_plan, find_tensorrt
from saccade.export.plans.version_plans import BuiltPlan, buildable_variants, ensure_plan, key_for
from saccade.models.contract.plans import PLAN_FILE
from saccade.service.repository.plans import PlanStore
from saccade.service.repository.verify import VerifiedVersion, verify_version
from tests.support.published_graphs import move_weights_out, publish_graphs
from tests.support.residual_network import residual_network

pytestmark = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


@pytest.fixture
def rtx() -> ModuleType:
    tensorrt = find_tensorrt("tensorrt_rtx")
    assert tensorrt is not None
    return tensorrt


@pytest.fixture
def version(tmp_path: Path) -> VerifiedVersion:
    verdicts = {"fp32": "accepted", "int8-trt": "pending", "int8-trt-sparse24": "pending", "int8-cpu": "accepted"}
    return verify_version(publish_graphs(tmp_path / "repository", verdicts))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def built(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore, name: str = "int8-trt", **options: object
) -> BuiltPlan:
    variant = version.manifest.variant(name)
    assert variant is not None
    return ensure_plan(version, variant, rtx, "SM89", store, **options)  # type: ignore[arg-type]


def test_plan_is_built_and_stored_with_its_gate_open(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore
) -> None:
    made = built(version, rtx, store)

    record = made.stored.record
    assert made.is_new
    assert store.read_plan(made.stored)
    assert (record.model, record.version, record.variant, record.gate) == ("digits", 1, "int8-trt", None)
    assert record.latency == ()
    assert record.key.capabilities == ("SM89",)
    assert record.key.runtime_version == rtx.__version__
    assert record.key.allowed_batch_sizes == (1, 2, 4)
    assert record.dtypes["int8"] == 11
    assert record.layers == sum(record.dtypes.values())
    assert made.claim is not None
    assert made.claim.is_kept
    variant = version.manifest.variant("int8-trt")
    assert variant is not None
    assert store.find("digits", 1, "int8-trt", key_for(version.manifest, variant, rtx, "SM89")) == made.stored


def test_plan_that_is_there_is_not_built_again(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(version, rtx, store)
    monkeypatch.setattr(version_plans, "build_plan", None)

    again = built(version, rtx, store)

    assert not again.is_new
    assert again.stored == first.stored


def test_plan_that_is_there_is_built_again_when_asked_or_damaged(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore
) -> None:
    first = built(version, rtx, store)

    assert built(version, rtx, store, force=True).is_new

    (first.stored.directory / PLAN_FILE).write_bytes(b"half")
    repaired = built(version, rtx, store)
    assert repaired.is_new
    assert store.read_plan(repaired.stored)


def test_sparse_kernels_are_allowed_exactly_for_two_four_weights(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def note(*arguments: object, is_sparse: bool, **options: object) -> PlanReport:
        asked.append(is_sparse)
        return build_plan(*arguments, is_sparse=is_sparse, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(version_plans, "build_plan", note)

    flags = [built(version, rtx, store, name).stored.record.key.flags for name in ("int8-trt", "int8-trt-sparse24")]

    assert asked == [False, True]
    assert flags == [(), ("sparse_weights",)]


def test_timings_of_a_former_build_are_given_to_the_next_and_its_own_are_kept(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []

    def with_timings(*arguments: object, timings: bytes, **options: object) -> PlanReport:
        given.append(timings)
        made = build_plan(*arguments, timings=timings, **options)  # type: ignore[arg-type]
        return PlanReport(
            **{name: getattr(made, name) for name in PlanReport.__dataclass_fields__} | {"timings": b"measured"}
        )

    monkeypatch.setattr(version_plans, "build_plan", with_timings)

    built(version, rtx, store)
    built(version, rtx, store, force=True)

    assert given == [b"", b"measured"]


def test_file_that_changes_during_the_build_keeps_nothing(
    version: VerifiedVersion, rtx: ModuleType, store: PlanStore
) -> None:
    file = version.path / "int8-trt.onnx"

    def tamper(stage: str, done_share: float) -> bool:
        file.write_bytes(file.read_bytes() + b"\x08\x08")
        return True

    with pytest.raises(DeviceError, match=r"int8-trt\.onnx changed while its plan was built"):
        built(version, rtx, store, progress=tamper)

    assert store.all("digits", 1) == ()


def test_weights_beside_the_graph_are_read_counted_and_part_of_the_key(
    tmp_path: Path, rtx: ModuleType, store: PlanStore
) -> None:
    directory = publish_graphs(tmp_path / "other", {"fp32": "accepted", "int8-trt": "pending"})
    inside = built(verify_version(directory), rtx, store)
    move_weights_out(directory)
    version = verify_version(directory)

    beside = built(version, rtx, store)

    assert [name for name, _ in beside.stored.record.key.external_sha256] == ["weights.bin"]
    assert beside.stored.record.dtypes == inside.stored.record.dtypes
    assert beside.claim == inside.claim

    def tamper(stage: str, done_share: float) -> bool:
        with (directory / "weights.bin").open("r+b") as file:  # in place: TensorRT maps it, and a shorter one ends it
            file.write(b"other")
        return True

    with pytest.raises(DeviceError, match=r"weights\.bin changed while its plan was built"):
        built(version, rtx, store, force=True, progress=tamper)


def test_cancelled_build_keeps_nothing(version: VerifiedVersion, rtx: ModuleType, store: PlanStore) -> None:
    with pytest.raises(BuildCancelled):
        built(version, rtx, store, progress=lambda stage, done_share: False)

    assert store.all("digits", 1) == ()


def test_operator_that_tensorrt_refuses_is_named_with_node_and_layer(
    tmp_path: Path, rtx: ModuleType, store: PlanStore
) -> None:
    model = residual_network()
    model.graph.node.append(helper.make_node("Det", ["stem"], ["volumes"], name="network.stage.2/Det"))
    model.graph.output.append(helper.make_tensor_value_info("volumes", TensorProto.FLOAT, None))
    version = verify_version(publish_graphs(tmp_path / "other", {"fp32": "accepted"}, replaced={"fp32": model}))

    with pytest.raises(
        DeviceError,
        match=r"tensorrt_rtx \S+ builds no plan of digits/1 fp32: Det 'network.stage.2/Det' of layer network",
    ):
        built(version, rtx, store, "fp32")


def test_graph_that_lacks_an_allowed_batch_size_is_refused(tmp_path: Path, rtx: ModuleType, store: PlanStore) -> None:
    model = residual_network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    version = verify_version(publish_graphs(tmp_path / "other", {"fp32": "accepted"}, replaced={"fp32": model}))

    with pytest.raises(DeviceError, match=r"takes batches of 1 to 1 only, its manifest allows \[2, 4\]"):
        built(version, rtx, store, "fp32")


def test_variants_for_tensorrt_that_no_gate_denied_are_built(version: VerifiedVersion, tmp_path: Path) -> None:
    other = verify_version(publish_graphs(tmp_path / "other", {"fp32": "accepted", "int8-trt": "denied"}))

    assert [variant.name for variant in buildable_variants(version.manifest)] == [
        "fp32",
        "int8-trt",
        "int8-trt-sparse24",
    ]
    assert [variant.name for variant in buildable_variants(version.manifest, ["int8-trt"])] == ["int8-trt"]
    assert [variant.name for variant in buildable_variants(other.manifest)] == ["fp32"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("int8-cpu", "int8-cpu is for cpu, not for TensorRT"),
        ("int4", "has no variant 'int4'; it has fp32, int8-trt"),
        ("int8-trt", "int8-trt was denied by its gate"),
    ],
)
def test_variant_that_cannot_be_built_is_wrong_usage(tmp_path: Path, asked: str, told: str) -> None:
    version = verify_version(
        publish_graphs(tmp_path / "other", {"fp32": "accepted", "int8-trt": "denied", "int8-cpu": "accepted"})
    )

    with pytest.raises(RecipeError, match=told):
        buildable_variants(version.manifest, [asked])
