"""Implements `make demo`: serves a repository, sends it images of the test split and prints answers and figures.

The server runs in its own process and is asked over HTTP. Every answer is printed beside the truth, and the exit code
is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import base64
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from saccade.export.errors import RecipeError
from saccade.export.gate.table import report_table
from saccade.export.reports.export_report import REPORT_JSON, read_report
from saccade.models.contract.specs import Task
from saccade.models.metrics.retrieval import recall_at
from saccade.service.cli.predict_text import summary_of

_SHOWN = 4  # images per task in the table; all samples are sent
_READY_WITHIN_S = 60.0
_STAGES = ("decode", "queue", "infer", "postprocess", "total")


class DemoFailed(Exception):
    """The demonstration cannot go on; the message is printed and the exit code is 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of the test split with its truth."""

    name: str
    jpeg: bytes
    truth: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    sample: Sample
    document: dict[str, Any]

    @property
    def prediction(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["predictions"][0]
        return found


def read_samples(repository: Path, task: Task) -> list[Sample]:
    """Reads the images that the exporter published beside the models. Raises DemoFailed when there are none."""
    folder = repository / ".samples" / task.value
    try:
        truths = orjson.loads((folder / "truth.json").read_bytes())["images"]
    except OSError as error:
        raise DemoFailed(f"no sample images in {folder}; run `make export`") from error
    return [Sample(name, (folder / name).read_bytes(), truth) for name, truth in sorted(truths.items())]


@contextmanager
def running_server(repository: Path, ready_within_s: float = _READY_WITHIN_S) -> Iterator[str]:
    """Runs `saccade serve` on a free port until the context ends. Raises DemoFailed when it does not become ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-P",
        "-m",
        "saccade.service",
        "serve",
        "--port",
        str(port),
        "--repository",
        str(repository),
    ]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, ready_within_s)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], ready_within_s: float) -> None:
    deadline_s = time.monotonic() + ready_within_s
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise DemoFailed(f"the server ended with exit code {process.returncode}")
        try:
            if httpx.get(f"{url}/health/ready", timeout=2.0).is_success:
                return
        except httpx.HTTPError:
            pass  # The server does not listen yet.
        time.sleep(0.02)
    raise DemoFailed(f"the server was not ready within {ready_within_s:g} s")


def ask(client: httpx.Client, model: str, samples: list[Sample]) -> list[Answered]:
    """Sends one request per image. Raises DemoFailed for the first answer whose status is not 200."""
    answered = []
    for sample in samples:
        response = client.post(
            f"/v1/models/{model}/predict", content=sample.jpeg, headers={"Content-Type": "image/jpeg"}
        )
        if not response.is_success:
            raise DemoFailed(f"{model} on {sample.name}: {response.status_code} {response.text}")
        answered.append(Answered(sample, response.json()))
    return answered


def agreement(task: Task, answered: list[Answered]) -> tuple[str, float]:
    """Returns the name and the share of correct answers; this is a smoke test, while the gate judges the metric."""
    match task:
        case Task.CLASSIFY:
            right = [
                [each["label"] for each in item.prediction["classes"][:1]]
                == [each["label"] for each in item.sample.truth["classes"][:1]]
                for item in answered
            ]
            return "right label first", float(np.mean(right))
        case Task.DETECT | Task.INSTANCES:
            pairs = [_found_boxes(item) for item in answered]
            return "true boxes found at IoU 0.5", sum(found for found, _ in pairs) / max(
                1, sum(all_ for _, all_ in pairs)
            )
        case Task.SEGMENT:
            return "mean IoU of true segments", float(
                np.mean([iou for item in answered for iou in _segment_ious(item)])
            )
        case Task.EMBED:
            vectors = np.array([item.prediction["embedding"]["values"] for item in answered])
            labels = np.array([item.sample.truth["classes"][0]["class_id"] for item in answered])
            return "nearest picture of the same label", recall_at(vectors, labels, 1)
        case Task.IMAGE:
            return "numbers within two levels of the target", float(np.mean([_near(item) for item in answered]))


def _near(item: Answered) -> float:
    """Returns the share of colours that differ from the target by two levels at most."""
    texts = (item.prediction["image"]["base64"], item.sample.truth["image"])
    found, target = (np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int) for text in texts)
    return float((np.abs(found - target) <= 2).mean())


def _found_boxes(item: Answered) -> tuple[int, int]:
    truths = item.sample.truth["detections"]
    found = 0
    for truth in truths:
        same = [other for other in item.prediction["detections"] if other["label"] == truth["label"]]
        boxes = [_xywh(other["box"]) for other in same]
        found += bool(boxes) and float(coco_mask.iou(boxes, [_xywh(truth["box"])], [0]).max()) >= 0.5
    return found, len(truths)


def _xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _segment_ious(item: Answered) -> list[float]:
    answers = {segment["label"]: segment["rle"] for segment in item.prediction["segments"]}
    truths = [segment for segment in item.sample.truth["segments"] if segment["label"] != "background"]
    return [_rle_iou(answers.get(truth["label"]), truth["rle"]) for truth in truths]


def _rle_iou(answer: dict[str, Any] | None, truth: dict[str, Any]) -> float:
    if answer is None:
        return 0.0
    return float(coco_mask.iou([_encoded(answer)], [_encoded(truth)], [0])[0, 0])


def _encoded(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode()}


def truth_line(truth: dict[str, Any]) -> str:
    """Words the truth as an answer's summary is worded."""
    key = next(key for key in ("classes", "detections", "segments") if key in truth)
    return ", ".join(item["label"] for item in truth[key] if item["label"] != "background")


def _answers_table(rows: list[tuple[str, list[Answered]]]) -> Table:
    table = Table("model", "image", "truth", "answer", *[f"{stage} ms" for stage in _STAGES], title="answers")
    for model, answered in rows:
        for item in answered[:_SHOWN]:
            times = [f"{item.document['timings_ms'][stage]:.1f}" for stage in _STAGES]
            table.add_row(model, item.sample.name, truth_line(item.sample.truth), summary_of(item.prediction), *times)
    return table


def _figures_table(models: list[dict[str, Any]], rows: list[tuple[str, list[Answered]]]) -> Table:
    table = Table(
        "model",
        "variant",
        "metric (test split)",
        "95 % interval",
        "from score",
        "precision / recall / F1",
        "best images/s",
        "speed in turns",
        "sent",
        "check",
        "p50 ms",
        title="figures",
    )
    answered_by_model = dict(rows)
    for model in models:
        version = model["versions"][0]
        metric = version["metric"]
        answered = answered_by_model[model["name"]]
        what, share = agreement(Task(model["task"]), answered)
        totals = [item.document["timings_ms"]["total"] for item in answered]
        table.add_row(
            f"{model['name']}/{version['version']}",
            version["variant"],
            f"{metric['name']} {metric['value']:.4f}" if metric else "unjudged",
            f"{metric['ci_low']:.4f} - {metric['ci_high']:.4f}" if metric else "",
            *_operating_cells(version["operating_point"]),
            f"{max(item['images_per_s'] for item in version['latency']):.0f}",
            _speed_cell(version),
            str(len(answered)),
            f"{what}: {share:.3f}",
            f"{np.median(totals):.1f}",
        )
    return table


def _speed_cell(version: dict[str, Any]) -> str:
    """Returns how the variant that serves compares with the most exact one, or every other with it."""
    mine = [pair for pair in version["speeds"] if pair["variant"] == version["variant"]]
    others = [
        f"{pair['variant']} {pair['text']}" for pair in version["speeds"] if pair["against"] == version["variant"]
    ]
    return mine[0]["text"] if mine else "; ".join(others)


def _operating_cells(point: dict[str, Any] | None) -> tuple[str, str]:
    """Returns a detector's figures at its default score threshold; both cells are empty for other tasks."""
    if point is None:
        return "", ""
    shares = " / ".join(f"{point[name]:.3f}" for name in ("precision", "recall", "f1"))
    return f"{point['score_threshold']:g}: {point['metric']['name']} {point['metric']['value']:.4f}", shares


def run(repository: Path) -> None:
    """Runs the whole demonstration. Raises DemoFailed."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    with running_server(repository) as url, httpx.Client(base_url=url, timeout=30.0) as client:
        models = client.get("/v1/models").json()["models"]
        rows = [
            (model["name"], ask(client, model["name"], read_samples(repository, Task(model["task"]))))
            for model in models
        ]
        for model in models:
            _print_gate(console, repository / model["name"] / str(model["versions"][0]["version"]))
        console.print(_answers_table(rows))
        console.print(_figures_table(models, rows))
    if not rows:
        raise DemoFailed(f"{repository} holds no model")
    console.print("done; `make serve` keeps the models at http://127.0.0.1:8000")


def _print_gate(console: Console, version_dir: Path) -> None:
    """Prints the verdicts of report.json, because the manifest beside it lists no denied variants."""
    try:
        console.print(report_table(read_report(version_dir / REPORT_JSON)))
    except RecipeError as error:
        raise DemoFailed(f"{error}; run `make export`") from error


def main() -> None:
    """Runs `make demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    try:
        run(parser.parse_args().repository)
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
