"""What an explanation costs a request, and whether a classifier's explanation points at a digit in a wider picture.

    python -m tests.load.explanations --repository repository
    python -m tests.load.explanations --files repository
    python -m tests.load.explanations --scenes

A server of every model that gives explanations is asked in turns, one request at a time: plain, for a grid, for a PNG.
A round asks every way as often; ratios are of the rounds' medians. `--files` times each file's plain answer with its
extra outputs and without them, in turns, opened anew each round, and says whether the answers are the same bits.
`--scenes` takes the reference classifier's weights
for pictures of 96 x 96: a digit of the size that it learned, anywhere on a background. Pictures that it answers wrongly
do not count, as the map is of the class that was answered.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from saccade.export.convert.onnx_from_torch import converted
from saccade.export.convert.onnx_optimization import slim
from saccade.export.convert.trace import traced
from saccade.export.convert.wrap import deployable_network, output_names
from saccade.export.extras.explanation import explained
from saccade.export.extras.marks import add_branch
from saccade.export.graph.onnx_graph import mark_network_outputs
from saccade.export.qualification.pointing import covered, is_hit
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.sources import load_network
from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.preprocessing import unmoved
from saccade.models.contract.specs import Task, output_tensors
from saccade.models.digits.backgrounds import background
from saccade.models.digits.digit_sources import Split, digit_instances, instance_indices
from saccade.models.digits.digit_strokes import paint, random_pose, stroke_coverage
from saccade.service.backends.base import LoadRequest, Outputs
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.paired_timing import Run, TimingLimits, pairs_of, timed_in_turns
from saccade.service.repository.without_extras import without_extras
from tests.support.images import scene_jpeg
from tests.support.server import ROOT, Server, running_server

WAYS: dict[str, dict[str, str]] = {"plain": {}, "grid": {"explain": "grid"}, "png": {"explain": "png"}}
_CORES = len(os.sched_getaffinity(0))
_SIDE = 96  # pixels of a scene: the classifier learned pictures of 64
_DIGIT_PX = (36.0, 54.0)  # as in the pictures that it learned


def cost(server: Server, model: str, rounds: int, requests: int) -> None:
    """Prints how many times as long an explained request takes as a plain one, at one connection."""
    jpeg = scene_jpeg(256, 256)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with httpx.Client(base_url=server.base_url) as client:
        for number in range(rounds + 1):  # the first round warms up
            for name, parameters in WAYS.items():
                took = []
                for _ in range(requests):
                    start_s = time.perf_counter()
                    client.post(f"/v1/models/{model}/predict", content=jpeg, params=parameters).raise_for_status()
                    took.append(time.perf_counter() - start_s)
                if number:
                    seconds[name].append(statistics.median(took))
    plain = statistics.median(seconds["plain"])
    for name in ("grid", "png"):
        ratios = sorted(each / base for each, base in zip(seconds[name], seconds["plain"], strict=True))
        middle = statistics.median(ratios)
        print(f"{model}: {name} {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times plain, {1000 * plain:.2f} ms")


def plain_cost(repository: Path) -> None:
    """Prints how fast the answer alone is from a file with extra outputs, against the same file without them."""
    for model in sorted(repository.iterdir()):
        version_dir = max(model.glob("[0-9]*"), key=lambda path: int(path.name), default=None)
        if version_dir is None:
            continue
        manifest, _ = read_manifest(version_dir)
        for variant in manifest.accepted_variants():
            if variant.extras and variant.target != "openvino":
                with tempfile.TemporaryDirectory() as name:
                    request = load_request(version_dir, manifest, variant.name, device="cpu", threads=_CORES)
                    print(f"{manifest.model} {variant.name}: {_compared(request, Path(name))}")


def _compared(request: LoadRequest, folder: Path) -> str:
    bare = folder / request.file.name
    bare.write_bytes(without_extras(request.file.read_bytes(), request.extras))
    requests = {"with": request, "without": replace(request, file=bare, sha256=None, extras=())}
    rng, sizes = np.random.default_rng(0), (1, 8)
    batches = [rng.integers(0, 256, (size, *request.input.shape), np.uint8) for size in sizes]

    @contextmanager
    def runs_of(each: LoadRequest) -> Iterator[list[Run]]:
        with closing(OnnxRuntimeBackend(each)) as backend:
            yield [partial(backend.infer, batch) for batch in batches]

    answers = []
    for each in requests.values():
        with runs_of(each) as runs:
            answers.append([array for run in runs for array in cast("Outputs", run())])
    same = all(np.array_equal(*pair) for pair in zip(*answers, strict=True))
    limits = TimingLimits(turns=4, budget_s=20.0, block_s=0.05)
    timings = timed_in_turns({name: partial(runs_of, each) for name, each in requests.items()}, limits)
    (found,) = pairs_of(timings, ["without", "with"], "cpu", sizes)["with"]
    return f"{'the same bits' if same else 'OTHER ANSWERS'}, {found.ratio:.3f} times as fast ({found.interval})"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    pixels: NDArray[np.uint8]
    class_id: int
    box: NDArray[np.float32]  # (1, 4)


def scene(index: int, side: int = _SIDE) -> Scene:
    """One digit of the test split anywhere in a picture; equal indices give equal pictures."""
    rng = np.random.default_rng((29, index, side))
    pixels = background(rng, side, Split.TEST).copy()
    images, classes = digit_instances()
    chosen = int(rng.choice(instance_indices(Split.TEST)))
    coverage = stroke_coverage(images[chosen], random_pose(rng, float(rng.uniform(*_DIGIT_PX))))[:side, :side]
    height, width = coverage.shape
    left, top = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
    paint(rng, pixels, coverage, left, top)
    box = np.array([[left, top, left + width, top + height]], np.float32)
    return Scene(pixels, int(classes[chosen]), box)


def wide_classifier(loaded: LoadedRecipe, folder: Path) -> onnx.ModelProto:
    """The deploy graph of a classifier's recipe with its explanation, as the exporter makes it for fp32."""
    recipe = loaded.recipe
    with torch.no_grad():
        deployable = deployable_network(load_network(loaded.network_request()), recipe)
        images = torch.zeros((2, recipe.preprocess.height, recipe.preprocess.width, 3), dtype=torch.uint8)
        trace = traced(deployable.module, images, deployable.not_batchable_reason)
    names = list(output_names(recipe, trace.outputs))
    converted(trace.program, names, recipe.onnx.opset, folder / "model.onnx")
    model = slim(onnx.load(folder / "model.onnx"))
    mark_network_outputs(model, names[len(output_tensors(recipe.task, recipe.preprocess)) :])
    add_branch(model, explained(model, Task.CLASSIFY, len(recipe.labels)))
    return model


def pointing(count: int) -> None:
    """Prints the reference classifier's hits in wider pictures, beside chance."""
    loaded = load_recipe(ROOT / "models" / "recipes" / "digits-classifier.yaml")
    preprocess = loaded.recipe.preprocess.model_copy(update={"width": _SIDE, "height": _SIDE})
    wide = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"preprocess": preprocess})})
    with tempfile.TemporaryDirectory() as name:
        content = wide_classifier(wide, Path(name)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    place, games = unmoved(preprocess), []
    for each in map(scene, range(count)):
        feed = {"images": each.pixels[np.newaxis], "ask_explain": np.array(True)}
        class_ids, heat = session.run(["class_ids", "explanation"], feed)
        if class_ids[0, 0] == each.class_id:
            games.append((is_hit(heat[0], place, (_SIDE, _SIDE), each.box), covered(place, each.box)))
    hits, chance = np.array(games, float).mean(0)
    print(
        f"classifier, {_SIDE} x {_SIDE}: {len(games)} of {count} answered right; hits {hits:.3f}, chance {chance:.3f}, "
        f"{hits / chance:.1f} times chance"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What explanations cost, and where a classifier's point.")
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=40, help="per way and round")
    parser.add_argument("--files", type=Path, metavar="REPOSITORY")
    parser.add_argument("--scenes", action="store_true")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.scenes:
        pointing(1000)
    if given.files is not None:
        plain_cost(given.files)
    if given.repository is not None:
        with (
            tempfile.TemporaryDirectory() as name,
            running_server(given.repository, Path(name), backend="onnxruntime") as server,
        ):
            for model in server.client.get("/v1/models").json()["models"]:
                if any("explain" in version["gives"] for version in model["versions"]):
                    cost(server, model["name"], given.rounds, given.requests)


if __name__ == "__main__":
    main()
