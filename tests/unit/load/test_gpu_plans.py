"""Plans of the benchmark: by the product's builder, once, and marked as never gated."""

from __future__ import annotations

from pathlib import Path

import onnx
import orjson
import pytest

from saccade.export.plans.runtime import find_tensorrt
from saccade.export.precision.effective_precision import layer_precisions
from saccade.models.contract.manifest import read_manifest
from saccade.service.repository.plans import PlanStore
from saccade.service.repository.verify import verify_version
from tests.load.gpu_networks import NETWORKS
from tests.load.gpu_plans import PlanNotBuilt, built_plan, effective
from tests.load.gpu_prepare import VARIANTS, prepare
from tests.load.gpu_publish import NotPrepared, made_variants, published

TINY = NETWORKS["tiny-32"]
needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("onnx")
    prepare(TINY, VARIANTS, directory, lambda text: None)
    return directory


def test_every_variant_multiplies_in_what_it_is_named_after(prepared: Path) -> None:
    facts = orjson.loads((prepared / TINY.name / "network.json").read_bytes())

    assert list(made_variants(facts)) == list(VARIANTS)
    assert {row["share_of_flops"] >= 0.8 for row in facts["variants"].values()} == {True}
    assert {name for name, row in facts["variants"].items() if row["claimed"]} == {
        name for name in VARIANTS if name.endswith("sparse24")
    }


def test_version_of_the_benchmark_is_whole_and_says_that_no_gate_judged_it(prepared: Path, tmp_path: Path) -> None:
    directory = published(TINY, prepared, tmp_path)

    manifest = verify_version(directory).manifest
    assert manifest.weights == "random"
    assert {variant.gate.checks[0].name for variant in manifest.variants} == {"benchmark"}
    assert published(TINY, prepared, tmp_path) == directory, "a second call finds it"


def test_network_that_was_not_prepared_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotPrepared, match="--prepare"):
        published(TINY, tmp_path, tmp_path / "repository")


@needs_rtx
def test_plan_is_built_once_and_marked(prepared: Path, tmp_path: Path) -> None:
    directory, store = published(TINY, prepared, tmp_path / "repository"), PlanStore(tmp_path / "engines")

    first = built_plan(directory, "fp16-sparse24", "tensorrt_rtx", "SM89", store)
    again = built_plan(directory, "fp16-sparse24", "tensorrt_rtx", "SM89", store)

    assert first.record == again.record
    assert first.record.key.flags == ("sparse_weights",)
    assert first.record.key.allowed_batch_sizes == read_manifest(directory)[0].allowed_batch_sizes
    assert first.record.gate is not None
    assert first.record.gate.checks[0].name == "benchmark"


@needs_rtx
def test_variant_that_the_exporter_did_not_make_is_told(prepared: Path, tmp_path: Path) -> None:
    directory = published(TINY, prepared, tmp_path / "repository")

    with pytest.raises(PlanNotBuilt, match="no variant 'bf16'"):
        built_plan(directory, "bf16", "tensorrt_rtx", "SM89", PlanStore(tmp_path / "engines"))


def test_inspector_is_read_for_precision_and_sparse_kernels(prepared: Path) -> None:
    file = prepared / TINY.name / "fp16-sparse24.onnx"
    layers = [
        {
            "Name": layer.node,
            "LayerType": "CaskConvolution",
            "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}],
            "TacticName": f"sm90_sparse_conv_{index}" if index else "sm90_conv",
            "Metadata": f"[ONNX Layer: {layer.node}]",
        }
        for index, layer in enumerate(layer_precisions(onnx.load(file)))
    ]

    found = effective(orjson.dumps({"Layers": layers}).decode(), file, "fp16-sparse24")

    assert found["share_in_precision"] == 1.0
    assert (found["plan_layers"], found["sparse_kernels"]) == (len(layers), len(layers) - 1)
    assert found["unaccounted_layers"] == 0
