"""A version as a Triton model repository: its configuration by Triton's own proto, its files, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from saccade.export.errors import RecipeError
from saccade.export.interchange.triton_repository import triton_config, triton_variant, write_triton_repository
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.specs import Task
from saccade.service.repository.verify import VerifiedVersion, verify_version
from tests.support.published_graphs import move_weights_out, publish_graphs
from tests.support.triton_config import parsed
from tests.support.versions import SIDE, manifest_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the proto's package


def config_of(manifest: Manifest) -> Any:
    return parsed(triton_config(manifest, triton_variant(manifest, None)))


@pytest.fixture
def version(tmp_path: Path) -> VerifiedVersion:
    verdicts = {"fp32": "accepted", "int8-cpu": "accepted", "int8-trt": "accepted"}
    return verify_version(publish_graphs(tmp_path / "repository", verdicts))  # type: ignore[arg-type]  # literals


def test_files_are_those_that_passed_the_gate(tmp_path: Path) -> None:
    directory = publish_graphs(tmp_path / "repository", {"int8-cpu": "accepted"})
    move_weights_out(directory, "int8-cpu")
    version = verify_version(directory)

    target = write_triton_repository(version, triton_variant(version.manifest, None), tmp_path / "triton")

    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (target / "1").iterdir()}
    listed = {entry.path: entry.sha256 for entry in version.manifest.files}
    assert written.keys() == {"int8-cpu.onnx", "weights.bin"}
    assert written.items() <= listed.items()
    assert (target / "labels.txt").read_text("utf-8").split() == list(version.manifest.labels)
    assert "JPEG" in (target / "README.md").read_text("utf-8")
    assert sorted(path.name for path in target.parent.iterdir()) == ["digits"]


def test_one_number_per_image_is_reshaped() -> None:
    config = config_of(manifest_for("digits", 1, Task.DETECT))

    counts = next(item for item in config.output if item.name == "counts")
    assert (list(counts.dims), counts.HasField("reshape"), list(counts.reshape.shape)) == ([1], True, [])
    assert list(config.input[0].dims) == [SIDE, SIDE, 3]


def test_images_that_must_not_share_a_batch_do_not() -> None:
    config = config_of(manifest_for("digits", 1, batchable=False))

    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_text_survives_the_text_format() -> None:
    manifest = manifest_for("digits", 1)
    odd = manifest.variants[0].model_copy(update={"file": 'é"\\\n.onnx'})

    assert parsed(triton_config(manifest, odd)).default_model_filename == 'é"\\\n.onnx'


@pytest.mark.parametrize("name", ["int8-trt", "bf16"])
def test_variant_that_onnx_runtime_cannot_serve_is_refused_with_others(version: VerifiedVersion, name: str) -> None:
    with pytest.raises(RecipeError, match=rf"'{name}' of digits/1 .*fp32, int8-cpu"):
        triton_variant(version.manifest, name)


def test_what_is_there_is_not_written_over(version: VerifiedVersion, tmp_path: Path) -> None:
    chosen = triton_variant(version.manifest, "int8-cpu")
    write_triton_repository(version, chosen, tmp_path / "triton")

    with pytest.raises(RecipeError, match="is there already"):
        write_triton_repository(version, chosen, tmp_path / "triton")
