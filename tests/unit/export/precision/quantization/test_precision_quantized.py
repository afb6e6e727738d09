"""Quantized variants. Promises: one observation for all, allowed data only, and every layer's fate is written down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import orjson
import pytest

from saccade.export.artifact import Artifact, Detail
from saccade.export.data.datasets import DataStore
from saccade.export.data.image_split import ImageSplit, Split
from saccade.export.data.labelled_images import ClassSample
from saccade.export.errors import DataRefused, GraphError
from saccade.export.graph.onnx_graph import MODEL_FILE, op_counts
from saccade.export.precision.files import CALIBRATION_FILE, POLICY_FILE
from saccade.export.precision.make import run_precision
from saccade.export.precision.quantization import calibrate
from saccade.export.precision.quantization.calibrate import (
    REFUSAL_FILE,
    calibrated_forms,
    read_histograms,
    run_calibrate,
    write_histograms,
)
from saccade.export.precision.quantization.thresholds import BINS, Histogram
from saccade.export.qualification.serving import open_backend
from saccade.export.recipe import AccuracyControlSpec, LoadedRecipe, PolicySpec, load_recipe
from saccade.export.reports.compression_report import read_quantized_layers
from saccade.export.steps import StepContext
from saccade.export.variants import VariantKind
from tests.support.residual_network import SIDE, residual_network

RECIPE = Path(__file__).parents[5] / "models" / "recipes" / "digits-classifier.yaml"
IMAGES = 32


class Splits(DataStore):
    """Noise, whose truth is what the float network says of it: quantization alone lowers the metric."""

    def __init__(self, are_shared: bool = False) -> None:
        super().__init__()
        self._are_shared = are_shared
        self._session = onnxruntime.InferenceSession(
            residual_network().SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def split(self, loaded: LoadedRecipe, name: Split) -> ImageSplit:
        label = "all" if self._are_shared else name
        images = np.random.default_rng(len(name)).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
        (answers,) = self._session.run(["class_ids"], {"images": images})
        digests = tuple(hashlib.sha256(f"{label}{index}".encode()).hexdigest() for index in range(IMAGES))
        return ImageSplit(name, [ClassSample(b"", int(row[0])) for row in answers], images, [], digests)


def loaded_recipe(**calibration: object) -> LoadedRecipe:
    """The reference recipe at toy size; accuracy control only where a test asks for it."""
    loaded = load_recipe(RECIPE)
    recipe = loaded.recipe
    calibration = {"accuracy_control": AccuracyControlSpec(budget_s=0.0), **calibration}
    changed = recipe.model_copy(
        update={
            "preprocess": recipe.preprocess.model_copy(update={"width": SIDE, "height": SIDE}),
            "calibration": recipe.calibration.model_copy(update={"percentiles": (), "entropy": False, **calibration}),
            "variants": ("fp32", "int8-cpu", "int8-trt", "fp8-trt"),
            "qualify": recipe.qualify.model_copy(update={"threads": 1}),
        }
    )
    return loaded.model_copy(update={"recipe": changed})


def context(
    directory: Path, name: str, variant: VariantKind | None, data: DataStore, loaded: LoadedRecipe | None = None
) -> StepContext:
    source, out = directory / "source", directory / name
    source.mkdir(exist_ok=True)
    out.mkdir()
    onnx.save(residual_network(), source / MODEL_FILE)
    inputs = {"onnx_optimization": source, "calibrate": directory / "calibrate"}
    return StepContext(
        loaded=loaded or loaded_recipe(),
        variant=variant,
        form="dense",
        out=out,
        inputs={key: Artifact(path, "0" * 64, "0" * 64, {}, 0.0) for key, path in inputs.items()},
        data=data,
        repository=directory,
        note=lambda text: None,
    )


def made(directory: Path, variant: VariantKind, loaded: LoadedRecipe | None = None) -> tuple[Path, Detail]:
    data = Splits()
    if not (directory / "calibrate").exists():
        run_calibrate(context(directory, "calibrate", None, data, loaded))
    step = context(directory, variant, variant, data, loaded)
    return step.out, run_precision(step)


def test_all_quantized_variants_read_one_observation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    observe = calibrate.observe
    monkeypatch.setattr(calibrate, "observe", lambda *given: passes.append(1) or observe(*given))

    kinds: tuple[VariantKind, ...] = ("int8-cpu", "int8-trt", "fp8-trt")
    details = [made(tmp_path, variant)[1] for variant in kinds]

    assert len(passes) == 1
    assert [detail["precision"] for detail in details] == ["int8", "int8", "fp8"]
    assert len({detail["calibration_sha256"] for detail in details}) == 1


def test_observation_covers_the_network_and_survives_its_file(tmp_path: Path) -> None:
    step = context(tmp_path, "calibrate", None, Splits())

    detail = run_calibrate(step)

    found = read_histograms(step.inputs["calibrate"])
    assert len(found) == detail["observed_tensors"]
    assert {"floats", "joined", "shortcut", "raw"} <= set(found)
    assert not {"shares", "scores"} & set(found)  # of the answer head
    assert found["joined"].counts.sum() == IMAGES * 32 * 4 * 4


def test_histograms_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    given = Histogram(-1.5, 2.0, np.arange(BINS))
    write_histograms({"a/b:0": given}, tmp_path / "histograms.npz")

    found = read_histograms(Artifact(tmp_path, "", "", {}, 0.0))

    assert list(found) == ["a/b:0"]
    assert (found["a/b:0"].low, found["a/b:0"].high) == (-1.5, 2.0)
    np.testing.assert_array_equal(found["a/b:0"].counts, given.counts)


def test_a_recipe_without_quantized_variants_needs_no_calibration_data(tmp_path: Path) -> None:
    loaded = loaded_recipe()
    floats = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"variants": ("fp32", "fp16")})})
    step = context(tmp_path, "calibrate", None, Splits(are_shared=True), floats)

    assert calibrated_forms(floats) == ()
    assert run_calibrate(step) == {"observed_tensors": 0}
    with pytest.raises(GraphError, match="no variant of this form asked for calibration"):
        read_histograms(step.inputs["calibrate"])


def test_shared_or_too_few_calibration_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"32 .* images are also in split"):
        run_calibrate(context(tmp_path, "shared", None, Splits(are_shared=True)))
    few = context(tmp_path, "few", None, Splits(), loaded_recipe(min_images=33))

    assert run_calibrate(few)["observed_tensors"] == 0
    assert "32 images, the recipe asks for at least 33" in (few.out / REFUSAL_FILE).read_text()


def test_every_weighted_layer_is_listed_quantized_or_with_a_reason(tmp_path: Path) -> None:
    out, detail = made(tmp_path, "int8-trt")

    layers = {each.layer: each for each in read_quantized_layers(out)}

    assert len(layers) == detail["weighted_nodes"] == 8
    assert layers["stem"].reason == "3 input channels, fewer than 16"
    assert layers["stem"].sensitivity is None
    assert layers["last"].quantized
    assert layers["last"].sensitivity is not None


def test_mean_squared_error_competes_and_is_reported(tmp_path: Path) -> None:
    out, _ = made(tmp_path, "int8-cpu")

    document = orjson.loads((out / CALIBRATION_FILE).read_bytes())

    assert [row["calibrator"] for row in document["candidates"]] == ["minmax", "mse"]


def test_fp8_is_measured_as_written_since_the_runtime_would_make_int8_kernels_of_it(tmp_path: Path) -> None:
    out, _ = made(tmp_path, "fp8-trt")
    images = Splits().split(loaded_recipe(), "tuning").images

    backend = open_backend(out / MODEL_FILE, loaded_recipe().recipe)
    scores, class_ids = backend.infer(images)
    backend.close()

    truth = np.array([each.class_id for each in Splits().split(loaded_recipe(), "tuning").samples])  # type: ignore[union-attr]  # class samples all
    assert np.isfinite(scores).all()
    assert (class_ids[:, 0] == truth).mean() > 0.7


def test_accuracy_control_gives_layers_back_and_reports_every_try(tmp_path: Path) -> None:
    control = AccuracyControlSpec(max_drop=0.0, max_float_layers=8)
    clipping = {"minmax": False, "mse": False, "percentiles": (60.0,)}
    out, detail = made(tmp_path, "int8-trt", loaded_recipe(**clipping, accuracy_control=control))
    rows = orjson.loads((out / CALIBRATION_FILE).read_bytes())["candidates"]
    reasons = [each.reason for each in read_quantized_layers(out)]

    assert detail["float_tuning_metric"] == 1.0
    assert int(detail["layers_given_back"]) == 5 - int(detail["quantized_weighted_nodes"]) > 0
    assert [row["calibrator"] for row in rows][:2] == ["percentile-60", "percentile-60, 1 layers float"]
    assert detail["tuning_metric"] == max(row["tuning_metric"] for row in rows) > rows[0]["tuning_metric"]
    assert len([reason for reason in reasons if reason.startswith("sensitive")]) == detail["layers_given_back"]


def test_accuracy_control_runs_by_itself_where_plain_int8_loses_more_than_the_gate_allows(tmp_path: Path) -> None:
    clipping = {"minmax": False, "mse": False, "percentiles": (60.0,)}
    _, detail = made(tmp_path, "int8-trt", loaded_recipe(**clipping, accuracy_control=AccuracyControlSpec()))

    assert int(detail["layers_given_back"]) > 0
    assert "layers stay float" in str(detail["accuracy_control"])


def test_a_searched_policy_is_kept_with_its_measurements(tmp_path: Path) -> None:
    policy = PolicySpec(objective="accuracy", candidates=2, budget_s=0.2)
    out, detail = made(tmp_path, "int8-cpu", loaded_recipe(mse=False, policy=policy))

    report = orjson.loads((out / POLICY_FILE).read_bytes())

    assert report["all_int8_ms"] > 0.0
    assert sum(block["nodes"] for block in report["blocks"]) >= int(detail["quantized_nodes"])
    assert len(report["candidates"]) <= 2
    assert (report["winner"] is None) == (detail["policy"] == "all-int8")
    assert (report["winner"] is None) == (report["keep_float"] == [])


def test_a_policy_is_not_searched_for_a_variant_that_runs_elsewhere(tmp_path: Path) -> None:
    out, detail = made(tmp_path, "int8-trt", loaded_recipe(policy=PolicySpec(objective="latency", budget_s=0.1)))

    assert not (out / POLICY_FILE).exists()
    assert "policy" not in detail
    assert op_counts(onnx.load(out / MODEL_FILE).graph.node)["DequantizeLinear"] == 11
