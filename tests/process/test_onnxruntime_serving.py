"""The whole path with the real runtime: tiny ONNX graphs, published with their digests, right answers over HTTP."""

from __future__ import annotations

import base64
import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from saccade.models.contract.specs import Task
from saccade.service.settings import core_count
from tests.support.graphs import BOX, classifier_graph, detector_graph, instances_graph, segmenter_graph, slowed
from tests.support.images import encoded, json_body, red_png
from tests.support.requests import at_once
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import (
    DIGITS,
    SIDE,
    manifest_for,
    publish,
    publish_fake,
    with_costs,
    with_files,
    with_variants,
)

GRAPHS = {
    "classifier": (Task.CLASSIFY, classifier_graph),
    "detector": (Task.DETECT, detector_graph),
    "segmenter": (Task.SEGMENT, segmenter_graph),
    "instances": (Task.INSTANCES, instances_graph),
}


def publish_graphs(root: Path) -> None:
    for model, (task, graph) in GRAPHS.items():
        publish_fake(root, model, 1, task, graph())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    publish_graphs(root)
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    workspace = tmp_path_factory.mktemp("server")
    with running_server(repository, workspace, backend="onnxruntime", max_queue_delay_ms=10) as running:
        yield running


def test_server_tunes_itself_once_and_serves_as_it_chose(tmp_path: Path) -> None:
    """A machine that does much else cuts the measurement short: it is not kept then, or given up with a warning."""
    if core_count() == 1:
        pytest.skip("one core leaves nothing to choose")
    publish_graphs(tmp_path / "repository")
    first, is_kept = tuned_start(tmp_path, "first")
    second, _ = tuned_start(tmp_path, "second")

    if is_kept:
        assert first is not None
        assert second is not None
        assert (first["measured"], second["measured"]) == ("now", "before")
        assert first["images_per_s"] == second["images_per_s"]
        assert all(rate > 0 for rate in first["images_per_s"].values())
    else:
        assert first is None or first["measured"] == "now"


def tuned_start(root: Path, start: str) -> tuple[dict[str, Any] | None, bool]:
    """What a start said of its tuning, None where it gave up; and whether a measurement is kept for the next one."""
    (root / start).mkdir()
    options: dict[str, Any] = {"backend": "onnxruntime", "tuning": "measure", "device_threads": 0}
    with running_server(root / "repository", root / start, **options) as server:
        assert server.predict("classifier", red_png(80)).status_code == 200
        is_kept = any((root / "repository" / ".tuning").glob("*.json"))
        if not (tuned := server.events("tuned")):
            assert "took longer" in server.events("tuning_failed")[0]["reason"]
            return None, is_kept
        workers = len(server.children("saccade.service.worker.process"))
        assert tuned[0]["choice"].startswith(f"{workers} worker(s)")
        return tuned[0], is_kept


def test_server_compares_variants_itself_and_says_why_one_serves(tmp_path: Path) -> None:
    """The exporter said that int8 is half as fast; in this repository fp32 has far more to do."""
    files = {"fp32.onnx": slowed(classifier_graph()), "int8_cpu.onnx": classifier_graph()}
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 200), int8_cpu=(0.94, 100))
    costly, _ = with_costs(manifest, fp32=0, int8_cpu=0)
    publish(tmp_path / "repository", with_files(costly, files), files=files)
    found = []
    for start, tuning in (("first", "off"), ("second", "measure")):
        (tmp_path / start).mkdir()
        options = {"backend": "onnxruntime", "device": "cpu", "tuning": tuning, "allow_spinning": "false"}
        with running_server(tmp_path / "repository", tmp_path / start, **options) as server:
            version = server.client.get("/v1/models/digits").json()["versions"][0]
            compared = [event["measured"] for event in server.events("variants_compared")]
            (pair,) = version["speeds"]
            found.append((version["variant"], pair["measured"], compared))
            assert version["choice"].startswith(f"{version['variant']} serves: ")
            assert server.events("variant_chosen")[0]["reason"] == version["choice"]
    assert found == [("fp32", "at export", []), ("int8-cpu", "here", ["now"])]


def answer(server: Server, model: str, image: bytes, **query: str) -> dict[str, Any]:
    response = server.predict(model, image, params=query)
    assert response.status_code == 200, response.text
    prediction: dict[str, Any] = response.json()["predictions"][0]
    return prediction


@pytest.mark.parametrize(("red", "digit"), [(0, 0), (80, 3), (255, 9), (180, 7)])
def test_classes_are_right(server: Server, red: int, digit: int) -> None:
    classes = answer(server, "classifier", red_png(red), top_k="10")["classes"]
    assert classes[0]["label"] == DIGITS[digit]
    scores = {item["class_id"]: item["score"] for item in classes}
    assert scores == pytest.approx({number: 1 - abs(red / 255 - number / 10) for number in range(10)}, abs=1e-5)
    assert [item["score"] for item in classes] == sorted(scores.values(), reverse=True)


def test_rows_of_shared_batches_belong_to_their_requests(server: Server) -> None:
    reds = [(number * 37) % 256 for number in range(60)]

    def best_score(red: int) -> float:
        score: float = answer(server, "classifier", red_png(red))["classes"][0]["score"]
        return score

    expected = [max(1 - abs(red / 255 - number / 10) for number in range(10)) for red in reds]
    assert at_once(best_score, reds, 16) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("width", "height"), [(SIDE, SIDE), (64, 64), (64, 32), (32, 64), (100, 50)])
def test_boxes_are_in_source_pixels_also_of_non_square_images(server: Server, width: int, height: int) -> None:
    detections = answer(server, "detector", red_png(0, width, height))["detections"]
    scale = max(width, height) / SIDE
    left, top = (SIDE - width / scale) / 2, (SIDE - height / scale) / 2
    moved = [(side - offset) * scale for side, offset in zip(BOX, (left, top, left, top), strict=True)]
    expected = np.clip(moved, 0, [width, height, width, height]).tolist()
    assert (detections[0]["label"], detections[0]["score"]) == ("7", pytest.approx(0.9))
    assert detections[0]["box"] == pytest.approx(expected, abs=0.01)


def test_weak_and_padding_rows_are_left_out(server: Server) -> None:
    assert [item["class_id"] for item in answer(server, "detector", red_png(20))["detections"]] == [7]
    found = answer(server, "detector", red_png(20), score_threshold="0")["detections"]
    assert [item["class_id"] for item in found] == [7, 3], "six of the eight rows are padding"
    assert found[1]["score"] == pytest.approx(20 / 255, abs=1e-5)
    best_first = answer(server, "detector", red_png(250))["detections"]
    assert [item["class_id"] for item in best_first] == [3, 7]
    assert len(answer(server, "detector", red_png(250), max_detections="1")["detections"]) == 1


def ring(width: int, height: int) -> tuple[bytes, np.ndarray]:
    """An image of a bright ring and the mask of its bright pixels."""
    mask = np.zeros((height, width), bool)
    mask[4:28, 4:28] = True
    mask[12:20, 12:20] = False
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[mask] = 200
    return encoded(Image.fromarray(pixels)), mask


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_masks_are_right_in_every_format(server: Server) -> None:
    image, mask = ring(SIDE, SIDE)
    (segment,) = answer(server, "segmenter", image)["segments"]
    assert (segment["label"], segment["class_id"], segment["area"]) == ("2", 3, int(mask.sum()))
    decoded = coco_mask.decode(segment["rle"]).astype(bool)
    assert np.array_equal(decoded, mask)
    png = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(answer(server, "segmenter", image, mask_format="png")["mask_png"])))
    )
    assert np.array_equal(png == 3, mask)
    (region,) = answer(server, "segmenter", image, mask_format="polygon")["segments"][0]["polygons"]
    (hole,) = region["holes"]
    exterior = np.array(region["exterior"])
    assert (exterior.min(), exterior.max()) == (4.0, 28.0)
    assert (np.min(hole), np.max(hole)) == (12.0, 20.0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (640, 320)])
def test_masks_come_at_source_size_without_the_letterbox(server: Server, width: int, height: int) -> None:
    image = Image.new("RGB", (width, height), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, width // 2, height))
    (segment,) = answer(server, "segmenter", encoded(image))["segments"]
    decoded = coco_mask.decode(segment["rle"])
    assert decoded.shape == (height, width)
    assert decoded[:, : width // 2 - width // SIDE].all()
    assert not decoded[:, width // 2 + width // SIDE :].any()
    assert segment["area"] == decoded.sum() == pytest.approx(width * height / 2, rel=0.07)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
@pytest.mark.parametrize(("width", "height"), [(SIDE, SIDE), (96, 96), (96, 48)])
def test_every_object_has_its_mask_in_every_format_and_one_without_pixels_is_none(
    server: Server, width: int, height: int
) -> None:
    scale = width // SIDE
    top = (SIDE * scale - height) // 2  # of the picture, in scaled model pixels
    x1, y1, x2, y2 = (int(side) * scale for side in BOX)
    mask = np.zeros((SIDE * scale, SIDE * scale), bool)
    mask[y1:y2, max(x1, SIDE * scale // 2) : x2] = True
    mask = mask[top : top + height]
    image = red_png(200, width, height)  # the other object's score is 200 / 255

    (found,) = answer(server, "instances", image)["detections"]
    (drawn,) = answer(server, "instances", image, mask_format="png")["detections"]
    (outlined,) = answer(server, "instances", image, mask_format="polygon")["detections"]
    (bare,) = answer(server, "instances", image, mask_format="none", max_detections="1")["detections"]

    assert (found["label"], found["class_id"], found["area"]) == ("7", 7, int(mask.sum()))
    assert np.array_equal(coco_mask.decode(found["rle"]).astype(bool), mask)
    png = Image.open(io.BytesIO(base64.b64decode(drawn["mask_png"])))
    assert (png.mode, np.asarray(png).tolist()) == ("1", mask.tolist())
    (region,) = outlined["polygons"]
    rows, columns = np.nonzero(mask)
    exterior = np.array(region["exterior"])
    assert exterior.min(0).tolist() == [columns.min(), rows.min()]
    assert exterior.max(0).tolist() == [columns.max() + 1, rows.max() + 1]
    assert set(bare) == {"label", "class_id", "score", "box", "area"}
    assert all(each["box"] == found["box"] for each in (drawn, outlined, bare))
    assert answer(server, "instances", image, score_threshold="0.95")["detections"] == []


def test_two_models_in_turns_do_not_mix(server: Server) -> None:
    def best_label(index: int) -> str:
        if index % 2:
            return str(answer(server, "classifier", red_png(180))["classes"][0]["label"])
        return str(answer(server, "detector", red_png(0))["detections"][0]["class_id"])

    assert at_once(best_label, range(30), 8) == ["7"] * 30


def test_a_bad_image_leaves_its_neighbours_right(server: Server) -> None:
    images = [red_png(80), b"bad", red_png(180)]
    document = server.client.post("/v1/models/classifier/predict", json=json_body(*images)).json()
    first, bad, last = document["predictions"]
    assert bad["error"]["status"] == 422
    assert (first["classes"][0]["label"], last["classes"][0]["label"]) == ("3", "7")


def test_the_provider_asked_for_is_the_provider_got(server: Server) -> None:
    assert {event["provider"] for event in server.events("version_ready")} == {"CPUExecutionProvider"}


def test_the_runtime_is_loaded_by_the_worker_only(server: Server) -> None:
    def libraries(process: Any) -> str:
        return " ".join(item.path for item in process.memory_maps())

    assert "onnxruntime" in libraries(server.worker())
    for api in server.api_processes():
        assert "onnxruntime" not in libraries(api)


def test_bad_graphs_are_refused_with_the_reason_while_others_serve(server: Server, repository: Path) -> None:
    publish_fake(repository, "no-graph", 1, content=b"this is no ONNX file")
    publish_fake(repository, "wrong-graph", 1, Task.DETECT, classifier_graph())
    assert "onnxruntime cannot load" in server.wait_state("no-graph", 1, "failed")["reason"]
    assert "the manifest declares" in server.wait_state("wrong-graph", 1, "failed")["reason"]
    assert answer(server, "classifier", red_png(80))["classes"][0]["label"] == "3"


def test_a_tampered_graph_is_refused_while_the_sound_one_serves(server: Server, repository: Path) -> None:
    building = repository / ".building"
    version = publish_fake(building, "detector", 2, Task.DETECT, detector_graph())
    content = bytearray((version / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (version / "model.onnx").write_bytes(content)
    version.rename(repository / "detector" / "2")
    assert "changed after its gate" in server.wait_state("detector", 2, "failed")["reason"]
    assert server.predict("detector", red_png(1)).json()["version"] == "1"


def test_a_device_that_is_not_there_is_refused_with_the_reason(repository: Path, tmp_path: Path) -> None:
    with running_server(repository, tmp_path, wait=False, backend="onnxruntime", device="cuda:0") as server:
        refused = server.wait_state("classifier", 1, "failed")
        # The driver is looked for first; where there is one, the provider is what is missing.
        assert "the NVIDIA driver is missing" in refused["reason"] or "CUDAExecutionProvider" in refused["reason"]
        wait_until(
            lambda: "no model could be loaded" in server.readiness().json()["reason"], what="the reason is given"
        )
        assert server.predict("classifier", red_png(1)).status_code == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
