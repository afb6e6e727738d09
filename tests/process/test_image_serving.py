"""Pictures over HTTP, with the real runtime. Promises: of the picture's size, in every form; tiles leave no seam."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from saccade.client import Client, ProducedPicture
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.service.cli.predict import predict
from tests.support.graphs import depth_graph, image_graph
from tests.support.images import json_body
from tests.support.ports import free_port
from tests.support.requests import at_once
from tests.support.server import Server, call_saccade, running_server
from tests.support.versions import SIDE, publish_fake

TILES = PreprocessSpec(width=SIDE, height=SIDE, fit="tile", margin=1)
WHOLE = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    rgb, double = TaskSpec(task=Task.IMAGE, picture="rgb"), TaskSpec(task=Task.IMAGE, picture="rgb", scale=2)
    depth = TaskSpec(task=Task.IMAGE, picture="depth")
    publish_fake(root, "blur", 1, Task.IMAGE, image_graph(), spec=rgb, preprocess=TILES)
    publish_fake(root, "enlarge", 1, Task.IMAGE, image_graph(scale=2), spec=double, preprocess=TILES)
    publish_fake(root, "style", 1, Task.IMAGE, image_graph(), spec=rgb, preprocess=WHOLE)
    publish_fake(root, "depth", 1, Task.IMAGE, depth_graph(), spec=depth, preprocess=WHOLE)
    return root


@pytest.fixture(scope="module")
def grpc_port() -> int:
    """0, which is off, where the extra is not installed."""
    extra = ("grpc", "grpc_reflection")
    return free_port() if all(importlib.util.find_spec(name) for name in extra) else 0


@pytest.fixture(scope="module")
def server(root: Path, grpc_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"max_tiles": 150, "max_pixels": 60_000, "grpc_port": grpc_port, "max_estimated_wait_ms": 0}
    with running_server(root, tmp_path_factory.mktemp("server"), backend="onnxruntime", **settings) as running:
        yield running


def scene(width: int, height: int) -> np.ndarray:
    """Noise, in which every seam would show."""
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def blurred(pixels: np.ndarray) -> np.ndarray:
    """What the network would answer to the whole picture."""
    padded = np.pad(pixels.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    height, width = pixels.shape[:2]
    return sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9


def asked(server: Server, model: str, pixels: np.ndarray, accept: str, **query: str) -> tuple[bytes, dict[str, str]]:
    response = server.predict(model, png(pixels), params=query, headers={"accept": accept})
    assert response.status_code == 200, response.text
    return response.content, dict(response.headers)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 40), (200, 97), (100, 300)])
def test_tiles_answer_as_the_whole_picture_would(server: Server, size: tuple[int, int]) -> None:
    pixels = scene(*size)

    found = opened(asked(server, "blur", pixels, "image/png")[0])

    assert found.shape == pixels.shape
    gap = np.abs(found.astype(np.float64) - blurred(pixels))
    assert (gap <= 1.0).mean() >= 0.999


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 60)])
def test_a_picture_smaller_than_a_tile_is_answered_in_its_size(server: Server, size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)

    found = opened(asked(server, "blur", pixels, "image/png")[0])

    assert found.shape == pixels.shape
    assert found[-1, -1].tolist() == [40, 40, 40] if min(size) == 1 else found[1, 1].tolist() == [90, 90, 90]


@pytest.mark.parametrize("model", ["blur", "enlarge"])
def test_without_a_server_the_same_pixels_come(server: Server, root: Path, tmp_path: Path, model: str) -> None:
    sizes = [(32, 32), (61, 40), (120, 97), (5, 3)]
    for index, size in enumerate(sizes):
        (tmp_path / f"{index}.png").write_bytes(png(scene(*size)))
    (tmp_path / "1b.png").write_bytes(b"no picture")
    (tmp_path / "9.png").write_bytes(png(scene(300, 1000)))
    arguments = [tmp_path, "--repository", root, "--model", model, "--format", "json"]
    environment = {"SACCADE_MAX_PIXELS": "500000", "SACCADE_MAX_TILES": "150"}

    ended = CliRunner().invoke(predict, list(map(str, arguments)), env=environment)

    *answers, much = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.exit_code == 1  # one picture is none, and one has too many tiles
    assert "at most 150 are allowed" in much["error"]
    assert "error" in answers.pop(2)
    for size, answer in zip(sizes, answers, strict=True):
        served = opened(asked(server, model, scene(*size), "image/png")[0])
        found = opened(base64.b64decode(answer["prediction"]["image"]["base64"]))
        assert (found == served).all()


def test_an_enlarged_picture_has_no_seam_either(server: Server) -> None:
    pixels = scene(90, 70)

    found = opened(asked(server, "enlarge", pixels, "image/webp")[0])

    assert found.shape == (140, 180, 3)
    expected = blurred(pixels).repeat(2, 0).repeat(2, 1)
    assert (np.abs(found - expected) <= 1.0).mean() >= 0.999


def test_every_form_holds_the_same_picture(server: Server) -> None:
    pixels = scene(64, 50)
    whole, headers = asked(server, "blur", pixels, "image/png")
    raw, raw_headers = asked(server, "blur", pixels, "application/octet-stream")
    assert asked(server, "blur", pixels, "image/png;q=0, image/webp")[1]["content-type"] == "image/webp"
    assert asked(server, "blur", pixels, "image/*")[0] == whole
    document = server.predict("blur", png(pixels)).json()["predictions"][0]

    assert headers["content-type"] == "image/png"
    assert (headers["x-saccade-model"], headers["x-saccade-variant"]) == ("blur", "fp32")
    assert raw_headers["x-saccade-image-size"] == "64x50"
    assert (np.frombuffer(raw, np.uint8).reshape(50, 64, 3) == opened(whole)).all()
    assert {name: document["image"][name] for name in ("width", "height", "format")} == {
        "width": 64,
        "height": 50,
        "format": "png",
    }
    assert base64.b64decode(document["image"]["base64"]) == whole


def test_a_network_of_whole_pictures_resizes_and_answers_in_the_source_size(server: Server) -> None:
    pixels = np.full((48, 100, 3), (10, 100, 200), np.uint8)

    found = opened(asked(server, "style", pixels, "image/png")[0])

    assert found.shape == pixels.shape
    assert np.abs(found[20, 50].astype(int) - pixels[20, 50]).max() <= 1


def test_depth_is_16_bits_with_their_scale(server: Server) -> None:
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:, 25:, 0] = 200
    data, headers = asked(server, "depth", pixels, "image/png")
    raw, _ = asked(server, "depth", pixels, "application/octet-stream")
    document = server.predict("depth", png(pixels)).json()["predictions"][0]["depth"]
    exact = np.frombuffer(raw, "<f4").reshape(40, 50)

    samples = opened(data)
    assert samples.max() == 65_535
    scale, offset = float(headers["x-saccade-depth-scale"]), float(headers["x-saccade-depth-offset"])
    assert (document["scale"], document["offset"]) == (scale, offset)
    assert np.abs(offset + scale * samples - exact).max() <= 0.51 * scale
    assert exact[20, 5] == pytest.approx(0.0, abs=1e-4)
    assert exact[20, 45] == pytest.approx(20.0, abs=1e-3)
    assert "its answer is the picture" in server.predict("depth", png(pixels), params={"explain": "grid"}).text
    refused = server.predict("depth", png(pixels), headers={"accept": "image/webp"})
    assert (refused.status_code, refused.json()["title"]) == (422, "Bad parameter")


def test_too_many_tiles_and_too_large_answers_are_named(server: Server) -> None:
    many = server.predict("blur", png(scene(200, 299)))
    large = server.predict("enlarge", png(scene(130, 130)))

    assert (many.status_code, large.status_code) == (413, 413)
    assert "tiles of 32x32, and at most 150 are allowed" in many.json()["detail"]
    assert "would have 67,600 pixels, and at most 60,000" in large.json()["detail"]


def test_one_picture_of_several_may_fail(server: Server) -> None:
    images = [png(scene(40, 40)), b"no picture", png(scene(200, 299))]

    predictions = server.client.post("/v1/models/blur/predict", json=json_body(*images)).json()["predictions"]

    assert predictions[0]["image"]["width"] == 40
    assert [each["error"]["status"] for each in predictions[1:]] == [422, 413]
    several = server.client.post(
        "/v1/models/blur/predict", json=json_body(*images[:1] * 2), headers={"accept": "image/png"}
    )
    assert several.status_code == 422
    assert "accept application/json" in several.json()["detail"]


def test_the_open_protocol_gives_the_tensor(server: Server) -> None:
    pixels = scene(SIDE, SIDE)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], "data": pixels.ravel().tolist()}

    (found,) = server.client.post("/v2/models/blur/infer", json={"inputs": [tensor]}).json()["outputs"]

    assert (found["name"], found["datatype"], found["shape"]) == ("image", "FP32", [1, SIDE, SIDE, 3])
    assert np.array(found["data"]).reshape(pixels.shape) * 255 == pytest.approx(blurred(pixels), abs=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_grpc_gives_the_same_tensor_and_refuses_what_it_would_have_to_cut(server: Server, grpc_port: int) -> None:
    pytest.importorskip("grpc", reason="the grpc extra is not installed")
    pytest.importorskip("grpc_reflection", reason="the grpc extra is not installed")
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    pixels = scene(SIDE, SIDE)
    tensor, large = triton.InferInput("images", [1, SIDE, SIDE, 3], "UINT8"), triton.InferInput("images", [1], "BYTES")
    tensor.set_data_from_numpy(pixels[np.newaxis])
    large.set_data_from_numpy(np.array([png(scene(50, 40))], np.object_))

    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        found = client.infer("blur", [tensor]).as_numpy("image")
        depth = client.infer("depth", [large]).as_numpy("depth")
        with pytest.raises(triton.InferenceServerException, match="takes tiles of 32x32: POST it to /v1/models"):
            client.infer("blur", [large])

    assert found[0] * 255 == pytest.approx(blurred(pixels), abs=0.01)
    assert depth.shape == (1, SIDE, SIDE)  # of the network's size, not of the picture's


def test_bench_counts_answers_that_are_pictures(server: Server, tmp_path: Path) -> None:
    for index, size in enumerate([(40, 30), (100, 70), (200, 200)]):  # the last one's answer is too large
        (tmp_path / f"{index}.png").write_bytes(png(scene(*size)))

    ended = call_saccade(
        *("bench", server.base_url, "enlarge", "--images", str(tmp_path), "--rate", "30", "--requests", "30"),
        *("--warm-up-s", "0", "--processes", "1", "--json", "-", "--timeout-s", "20"),
    )

    report = json.loads(ended.stdout)
    counts = {item["label"]: item["count"] for item in report["outcomes"]}
    assert counts == {"200": 20, "413 Payload too large": 10}
    assert [(item["version"], item["variant"], item["count"]) for item in report["versions"]] == [("1", "fp32", 20)]


def test_the_client_has_the_pixels_and_draws_the_answer(server: Server) -> None:
    pixels = scene(70, 45)
    with Client(str(server.client.base_url)) as client:
        found = client.predict(pixels, model="blur", image_format="raw")
        depth = client.predict(pixels, model="depth")

    assert isinstance(found, ProducedPicture)
    assert not found.is_depth
    assert (np.abs(found.pixels - blurred(pixels)) <= 1.0).mean() >= 0.999
    assert found.draw(png(pixels)).size == (70, 45)
    assert isinstance(depth, ProducedPicture)
    assert depth.is_depth
    assert (depth.pixels.dtype, depth.image.size) == (np.float32, (70, 45))


def test_the_command_writes_the_picture(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(scene(40, 50)))
    ask = [str(server.client.base_url), "enlarge", str(tmp_path / "in.png")]

    shown = CliRunner().invoke(predict, [*ask, "--draw", str(tmp_path / "out")])
    refused = CliRunner().invoke(predict, [*ask, "--format", "coco"])

    assert shown.exit_code == 0, shown.output
    assert opened((tmp_path / "out" / "in.png").read_bytes()).shape == (100, 80, 3)
    assert "COCO has no place for pictures that a network made; take --draw DIR or json" in refused.output


def test_a_deadline_and_many_requests_leave_no_slot_taken(server: Server) -> None:
    late = server.predict("blur", png(scene(200, 150)), params={"deadline_ms": "1"})
    server.wait_idle()
    statuses = at_once(lambda number: server.predict("blur", png(scene(100 + number, 90))).status_code, range(24), 8)

    assert late.status_code in (429, 504)
    assert set(statuses) <= {200, 429}
    assert 200 in statuses
    assert server.predict("blur", png(scene(60, 60))).status_code == 200
