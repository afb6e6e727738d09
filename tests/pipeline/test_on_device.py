"""Settling pending checks. Promises: a recorded device tests the logic, and its figures are never published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app, main
from saccade.export.errors import DataRefused, DeviceError, DeviceMissing, PublishError
from saccade.export.gate.decision import verdict
from saccade.export.gate.device_probe import TensorRtProbe, missing_for_plans
from saccade.export.gate.on_device import Settled, settle
from saccade.export.gate.plan_gate import plan_verdict
from saccade.export.gate.settled_version import publish_settled
from saccade.models.contract.manifest import MANIFEST_NAME, GateCheck, Manifest, read_manifest
from saccade.service.repository.plans import PlanStore
from saccade.service.repository.verify import verify_version
from tests.pipeline.published_tiny import DENSE, FAST_SPARSE, SPARSE, Published
from tests.pipeline.recorded_device import RecordedDevice, Recording


def verdicts(settled: Settled) -> dict[str, str]:
    return {each.qualify.variant: verdict(each.gate) for each in settled.report.variants}


def failed(settled: Settled, variant: str) -> list[GateCheck]:
    (found,) = (each.gate for each in settled.report.variants if each.qualify.variant == variant)
    return [check for check in found.checks if not check.passed]


def test_published_version_waits_for_a_device(published: Published) -> None:
    manifest = read_manifest(published.version_dir)[0]

    assert [variant.name for variant in manifest.accepted_variants()] == ["fp32"]
    assert [variant.name for variant in manifest.pending_variants()] == [DENSE, SPARSE]
    assert all(variant.latency == () for variant in manifest.pending_variants())


def test_device_settles_every_pending_check(published: Published) -> None:
    settled = published.settle(FAST_SPARSE)

    assert verdicts(settled) == {"fp32": "accepted", DENSE: "accepted", SPARSE: "accepted"}
    device = settled.report.variants[2].qualify.device
    assert device is not None
    assert device.sparse_gain is not None
    assert (device.sparse_gain.sibling, device.sparse_gain.ratio) == (DENSE, 1.25)


@pytest.mark.parametrize(
    ("recording", "check"),
    [
        (Recording(is_sparse_picked=False, seconds=FAST_SPARSE.seconds), "sparse_tactic"),
        (Recording(seconds={DENSE: 0.010, SPARSE: 0.0099}), "sparse_gain"),
    ],
)
def test_sparsity_that_does_not_pay_is_denied_and_dense_ships(
    recording: Recording, check: str, published: Published
) -> None:
    settled = published.settle(recording)

    assert verdicts(settled) == {"fp32": "accepted", DENSE: "accepted", SPARSE: "denied"}
    assert [each.name for each in failed(settled, SPARSE)] == [check]


def test_layer_that_a_plan_silently_does_in_fp32_is_denied(published: Published) -> None:
    dense = published.settle(FAST_SPARSE).report.variants[1].qualify
    largest = max(dense.layers, key=lambda layer: layer.flops).node

    settled = published.settle(Recording(silently_fp32=(largest,), seconds=FAST_SPARSE.seconds))

    assert verdicts(settled)[DENSE] == "denied"
    assert [each.name for each in failed(settled, DENSE)] == ["plan_precision"]


def test_version_alone_settles_a_plan_as_its_recipe_does(published: Published) -> None:
    manifest = read_manifest(published.version_dir)[0]
    by_recipe = {each.qualify.variant: each for each in published.settle(FAST_SPARSE).report.variants}

    figures, gate = plan_verdict(
        published.version_dir, manifest, SPARSE, RecordedDevice(published.loaded.recipe, FAST_SPARSE)
    )

    assert gate.accepted
    assert by_recipe[SPARSE].qualify.device is not None
    assert figures.metric == by_recipe[SPARSE].qualify.device.metric
    assert [check.name for check in gate.checks] == [check.name for check in by_recipe[SPARSE].gate.checks]


def test_plan_that_loses_on_the_device_is_denied_by_the_published_limits(published: Published) -> None:
    manifest = read_manifest(published.version_dir)[0]
    recording = Recording(is_sparse_picked=False, seconds=FAST_SPARSE.seconds)

    _, gate = plan_verdict(published.version_dir, manifest, SPARSE, RecordedDevice(published.loaded.recipe, recording))

    assert [check.name for check in gate.checks if not check.passed] == ["sparse_tactic"]


def test_report_that_the_manifest_does_not_vouch_for_sets_no_limits(published: Published, tmp_path: Path) -> None:
    version_dir = tmp_path / "tiny-classifier" / "1"
    shutil.copytree(published.version_dir, version_dir)
    manifest = read_manifest(version_dir)[0]
    report = version_dir / "report.json"
    report.write_bytes(report.read_bytes().replace(b'"min_sparse_gain": 1.03', b'"min_sparse_gain": 0.01'))

    with pytest.raises(DeviceError, match="not the report that the manifest lists"):
        plan_verdict(version_dir, manifest, SPARSE, RecordedDevice(published.loaded.recipe, FAST_SPARSE))


def test_version_without_test_images_says_how_it_is_settled(published: Published) -> None:
    manifest = read_manifest(published.version_dir)[0]
    bare = manifest.model_copy(
        update={"files": tuple(entry for entry in manifest.files if entry.path != "evidence.npz")}
    )

    with pytest.raises(DataRefused, match=r"carries no test images .*qualify --on-this-device"):
        plan_verdict(published.version_dir, bare, SPARSE, RecordedDevice(published.loaded.recipe, FAST_SPARSE))


def test_figures_of_a_recording_are_never_published(published: Published) -> None:
    with pytest.raises(PublishError, match="replayed from a recording"):
        publish_settled(published.settle(FAST_SPARSE), None)

    assert [path.name for path in published.version_dir.parent.iterdir()] == ["1"]


def test_settled_version_is_a_new_one_without_what_the_device_denied(published: Published) -> None:
    before = (published.version_dir / MANIFEST_NAME).read_bytes()
    recording = Recording(is_sparse_picked=False, seconds=FAST_SPARSE.seconds)

    device = RecordedDevice(published.loaded.recipe, recording)

    made = publish_settled(published.settle(recording, is_recorded=False), None)

    manifest: Manifest = verify_version(made).manifest
    try:
        assert (manifest.version, made.name) == (2, "2")
        assert [variant.name for variant in manifest.variants] == ["fp32", DENSE]
        assert all(variant.gate.accepted for variant in manifest.variants)
        assert manifest.variants[1].measured_on.kind == "cuda"
        assert [entry.step for entry in manifest.lineage[-2:]] == [f"on_device.{DENSE}", f"on_device.{SPARSE}"]
        assert not (made / f"{SPARSE}.onnx").exists()
        assert "sparse_tactic" in (made / "report.md").read_text()
        assert (published.version_dir / MANIFEST_NAME).read_bytes() == before
        with pytest.raises(DeviceError, match="nothing is pending in tiny-classifier/2"):
            settle(made, published.loaded.recipe, published.data, device, lambda text: None)
    finally:
        shutil.rmtree(made)


def test_recipe_of_another_model_is_refused(published: Published) -> None:
    device = RecordedDevice(published.loaded.recipe, FAST_SPARSE)
    other = published.loaded.recipe.model_copy(update={"model": "another"})

    with pytest.raises(DeviceError, match="the recipe is of 'another'"):
        settle(published.version_dir, other, published.data, device, lambda text: None)


def test_program_without_a_device_says_what_is_missing_and_changes_nothing(
    published: Published, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("saccade.export.gate.device_probe.find_tensorrt", lambda: None)
    monkeypatch.setattr("saccade.export.gate.device_probe.present_gpu", lambda: None)
    places = ["--repository", str(published.settings.repository)]
    monkeypatch.setattr(
        "sys.argv", ["saccade-export", "qualify", str(published.loaded.path), "--on-this-device", *places]
    )

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 1
    text = capsys.readouterr().err
    assert "no TensorRT runtime" in text
    assert "driver" in text
    assert [path.name for path in published.version_dir.parent.iterdir()] == ["1"]


def test_version_directory_needs_the_recipe_that_names_its_test_images(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.export.cli.gate.missing_for_plans", tuple)

    result = CliRunner().invoke(app, ["qualify", str(published.version_dir), "--on-this-device"])

    assert "add --recipe" in str(result.exception)


def test_missing_driver_and_runtime_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.export.gate.device_probe.find_tensorrt", lambda: None)
    monkeypatch.setattr("saccade.export.gate.device_probe.present_gpu", lambda: None)
    (tmp_path / "version").write_text("NVRM version: 999.1\n")

    without = missing_for_plans(tmp_path / "absent")
    with_driver = missing_for_plans(tmp_path / "version")

    assert "no TensorRT runtime" in without[0]
    assert "no NVIDIA driver" in without[1]
    assert "999.1" in with_driver[1]


def test_device_that_is_not_there_is_not_probed(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.export.gate.device_probe.present_gpu", lambda: None)

    with pytest.raises(DeviceMissing, match=r"no NVIDIA driver|CUDA finds no GPU"):
        TensorRtProbe(verify_version(published.version_dir), PlanStore(published.version_dir.parent / ".engines"))
