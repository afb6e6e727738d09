"""A -seg file from recipe to HTTP answer. Promises: boxes and masks are those that its library would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest
import yaml
from click.testing import CliRunner
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from saccade.export.cli.program import app
from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.preprocessing import preprocess
from saccade.models.digits.digit_scenes import SceneSample, Split, decode_rgb, scene_samples
from tests.pipeline.conftest import QUICK, Document
from tests.support.library_masks import upsampled_masks
from tests.support.onnx_files import corners_of, masks_file, suppressed
from tests.support.server import Server, running_server

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of pycocotools' decoder
]
SIDE = 64
CLASSES = 10
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file, its recipe, and the repository that the recipe was exported to."""
    root = tmp_path_factory.mktemp("masks")
    masks_file(root / "net.onnx", CLASSES, (SIDE, SIDE))
    document: Document = {
        **QUICK,
        "model": "seg",
        "source": "onnx",
        "weights": "net.onnx",
        "labels": [str(digit) for digit in range(CLASSES)],
        "preprocess": {"fit": "letterbox"},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(document))
    places = ["--repository", str(root / "repository"), "--work", str(root / "work"), "--json"]
    result = CliRunner().invoke(app, ["run", str(root / "recipe.yaml"), *places])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(scope="module")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    workspace = tmp_path_factory.mktemp("server")
    with running_server(
        exported / "repository", workspace, backend="onnxruntime", allow_unjudged="true", variant="fp32"
    ) as running:
        yield running


def library_answer(file: Path, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """Scores, class ids, corners in model pixels and masks at model size, by the library's own arithmetic."""
    images = (pixels.astype(np.float32) / 255.0).transpose(2, 0, 1)[np.newaxis]
    rows, prototypes = onnxruntime.InferenceSession(file).run(None, {"images": images})
    rows = rows[0].T
    scores, ids = rows[:, 4 : 4 + CLASSES].max(1), rows[:, 4 : 4 + CLASSES].argmax(1)
    corners = corners_of(rows[:, :4])
    chosen = [row for row in suppressed(corners, scores, ids, 0.7) if scores[row] >= THRESHOLD]
    masks = upsampled_masks(rows[chosen, 4 + CLASSES :], prototypes[0], corners[chosen], (SIDE, SIDE))
    seen = masks.any((1, 2))
    return scores[chosen][seen], ids[chosen][seen], corners[chosen][seen], masks[seen]


def test_version_says_its_task_and_how_masks_are_given(exported: Path) -> None:
    manifest, _ = read_manifest(exported / "repository" / "seg" / "1")

    assert manifest.task.task == "segment-instances"
    assert manifest.task.masks is not None
    assert (manifest.task.masks.channels, manifest.task.masks.height, manifest.task.masks.width) == (6, 16, 16)
    assert [variant.name for variant in manifest.accepted_variants()] == ["fp32", "int8-cpu"]
    assert manifest.reference_metric.name == "mask_map"
    fp32 = next(variant for variant in manifest.variants if variant.name == "fp32")
    (agreement,) = (check for check in fp32.gate.checks if check.name == "agreement")
    assert "mask_iou 1.0000" in agreement.detail
    truth = orjson.loads((exported / "repository" / ".samples" / "segment-instances" / "truth.json").read_bytes())
    assert all(each["rle"]["size"] == [256, 256] for image in truth["images"].values() for each in image["detections"])


def test_answer_over_http_is_the_library_s(exported: Path, server: Server) -> None:
    manifest, _ = read_manifest(exported / "repository" / "seg" / "1")
    objects = 0
    for scene in scene_samples(Split.TEST, 5, 6):
        pixels = decode_rgb(scene.jpeg)
        scores, ids, corners, masks = library_answer(exported / "net.onnx", preprocess(pixels, manifest.preprocess))

        answer = server.predict("seg", scene.jpeg, params={"score_threshold": str(THRESHOLD)}).json()
        found = answer["predictions"][0]["detections"]

        assert [each["class_id"] for each in found] == ids.tolist()
        np.testing.assert_allclose([each["score"] for each in found], scores, atol=1e-4)
        scale = 256 / SIDE  # of a square picture
        boxes = np.array([each["box"] for each in found]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, (corners * scale).clip(0, 256), atol=0.05)
        for each, mask in zip(found, masks, strict=True):
            large = mask.repeat(4, 0).repeat(4, 1)
            decoded = coco_mask.decode(each["rle"]).astype(bool)
            assert (decoded & large).sum() >= 0.98 * (decoded | large).sum()
            assert each["area"] == decoded.sum()
        objects += len(found)
    assert objects > 10


def annotations(scenes: list[SceneSample]) -> dict[str, Any]:
    """The truth of scenes in COCO's format, with run lengths."""
    rows: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for place, (class_id, (x1, y1, x2, y2)) in enumerate(zip(scene.class_ids, scene.boxes, strict=True), start=1):
            runs = coco_mask.encode(np.asfortranarray(scene.owners == place, np.uint8))
            segmentation = {"size": runs["size"], "counts": runs["counts"].decode()}
            row = {"id": len(rows), "image_id": number, "category_id": int(class_id), "segmentation": segmentation}
            rows.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": 256, "height": 256} for number in range(len(scenes))
    ]
    categories = [{"id": class_id, "name": str(class_id)} for class_id in range(CLASSES)]
    return {"images": images, "annotations": rows, "categories": categories}


def test_compare_matches_masks_too(exported: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    old: list[dict[str, Any]] = []
    recipe = yaml.safe_load((exported / "recipe.yaml").read_text())
    scenes = list(scene_samples(Split.TEST, 6, 16))
    (pictures / "annotations.json").write_bytes(orjson.dumps(annotations(scenes), option=orjson.OPT_SERIALIZE_NUMPY))
    for number, scene in enumerate(scenes):
        (pictures / f"{number}.jpg").write_bytes(scene.jpeg)
        manifest, _ = read_manifest(exported / "repository" / "seg" / "1")
        scores, ids, corners, masks = library_answer(
            exported / "net.onnx", preprocess(decode_rgb(scene.jpeg), manifest.preprocess)
        )
        for score, class_id, (x1, y1, x2, y2), mask in zip(scores, ids, (corners * 4).clip(0, 256), masks, strict=True):
            runs = coco_mask.encode(np.asfortranarray(mask.repeat(4, 0).repeat(4, 1), np.uint8))
            segmentation = {"size": runs["size"], "counts": runs["counts"].decode()}
            row = {"file_name": f"{number}.jpg", "category_id": int(class_id), "score": float(score)}
            old.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": segmentation})
    recipe |= {"data": str(pictures), "weights": str(exported / "net.onnx")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "old.json").write_bytes(orjson.dumps(old, option=orjson.OPT_SERIALIZE_NUMPY))
    asked = ["compare", str(tmp_path / "recipe.yaml"), "--answers", str(tmp_path / "old.json")]
    asked += ["--threshold", str(THRESHOLD), "--work", str(exported / "work"), "--json"]

    same = CliRunner().invoke(app, asked)
    old[0]["segmentation"] = old[-1]["segmentation"]  # the mask of another object
    (tmp_path / "old.json").write_bytes(orjson.dumps(old, option=orjson.OPT_SERIALIZE_NUMPY))
    other = CliRunner().invoke(app, asked)

    assert same.exit_code == 0, same.output
    document = json.loads(same.stdout)
    assert document["share"] == 1.0
    assert min(each["worst_mask_iou"] for each in document["pictures"]) >= 0.98
    theirs = sum(each["theirs"] for each in document["pictures"])
    assert sum(each["same"] for each in json.loads(other.stdout)["pictures"]) == theirs - 1
