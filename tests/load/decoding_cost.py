"""What decoding and suppression in the graph cost: `python -m tests.load.decoding_cost FILE`, two minutes.

FILE is a detector's ONNX file that `saccade-export init` recognises, such as one that Ultralytics exported. Its deploy
graph (bytes in, answers out) and the file itself (floats in, raw rows out) take turns in ONNX Runtime on the same
pictures; the difference is normalisation, decoding, suppression and selection. Two figures say how far a run can be
trusted: the interval of the cost, and how far the middle half of each side's turns lie apart. With `--processor` it is
processor time of all threads, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import yaml
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.datasets import DataStore
from saccade.export.data.fidelity import photograph
from saccade.export.errors import ExportError
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.qualification.bare_graph import bare_images
from saccade.export.qualification.benchmark import seconds_per_run, speed_ratio
from saccade.export.recipe import load_recipe

_GRAPH = "onnx_optimization"
_PICTURES = 16
_SPLITS = ("test", "calibration", "test", "tuning")  # of the pictures, in turn; those of `test` are timed


def deploy_graph(file: Path, pictures: Sequence[Path], work: Path) -> tuple[Path, NDArray[np.uint8]]:
    """The deploy graph of `file`, and pictures (n, height, width, 3) as it takes them. Raises ExportError."""
    data = work / "pictures"
    for index in range(len(pictures) or _PICTURES):
        folder = data / _SPLITS[index % len(_SPLITS)]
        folder.mkdir(parents=True, exist_ok=True)
        given = Image.open(pictures[index]) if pictures else Image.fromarray(photograph(640, 480, index))
        given.convert("RGB").save(folder / f"{index}.jpg", quality=95)
    document = {
        "model": "decoding-cost",
        "source": {"kind": "onnx"},
        "weights": str(file.resolve()),
        "data": data.name,
        "variants": ["fp32"],
        "gate": {"mode": "parity"},
    }
    (work / "recipe.yaml").write_text(yaml.safe_dump(document))
    loaded, store = load_recipe(work / "recipe.yaml"), DataStore()
    settings = RunSettings(work=work / "steps", repository=work / "repository", until=_GRAPH)
    listener = Listener(started=lambda step: None, noted=lambda text: None, finished=lambda result: None)
    results = {result.step: result for result in run_pipeline(loaded, settings, store, listener)}
    made = results[_GRAPH].artifact if _GRAPH in results else None
    if made is None:
        raise ExportError(str([result.detail for result in results.values() if result.status == "failed"]))
    return made.file(MODEL_FILE), store.split(loaded, "test").images


def cost_lines(seconds: NDArray[np.float64], batch: int) -> list[str]:
    """What the deploy graph (column 0) takes more than the bare one (column 1), over turns (rows) of one batch."""
    figure = speed_ratio(seconds, batch)
    cost, low, high = (100 * (1 / ratio - 1) for ratio in (figure.ratio, figure.ci_high, figure.ci_low))
    lines = [f"decoding adds {cost:.1f} % ({low:.1f} % to {high:.1f} %) over {len(seconds)} turns"]
    for name, column in zip(("deploy", "bare"), seconds.T, strict=True):
        first, middle, third = np.percentile(1e3 * column, [25, 50, 75])
        spread = 100 * (third - first) / middle
        lines.append(f"{name}: {middle:.1f} ms a batch ({first:.1f} to {third:.1f}, middle half {spread:.1f} % apart)")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "pictures", type=Path, nargs="*", help="otherwise some are generated; every second one is timed"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--processor", action="store_true", help="processor time instead of wall time")
    parser.add_argument("--keep", type=Path, help="where to write the deploy graph")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph, images = deploy_graph(given.file, given.pictures, Path(folder))
        content = graph.read_bytes()
    if given.keep:
        given.keep.write_bytes(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    options.log_severity_level = 3
    deploy = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    bare = onnxruntime.InferenceSession(given.file, options, providers=["CPUExecutionProvider"])
    batch = np.resize(images, (given.batch, *images.shape[1:]))
    floats, name = bare_images(batch), bare.get_inputs()[0].name
    runs = (lambda: deploy.run(None, {"images": batch}), lambda: bare.run(None, {name: floats}))
    clock = time.process_time if given.processor else time.perf_counter
    seconds = seconds_per_run(runs, given.turns, float("inf"), clock)
    counts = deploy.run(["counts"], {"images": batch})[0]
    kind = "processor time" if given.processor else "wall time"
    print(f"{given.file.name}, batch {given.batch}, {given.threads} threads, {kind}, {counts.tolist()} objects")
    print(*cost_lines(seconds, given.batch), sep="\n")


if __name__ == "__main__":
    main()
