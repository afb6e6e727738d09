"""The playground's pure scripts in Node: differences of answers, load out of metrics, programs for the same request."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import saccade.service.api.http.playground
from saccade.service.metrics import Metrics

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node in PATH")

SCRIPTS = Path(saccade.service.api.http.playground.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts where Node takes them for modules."""
    found = tmp_path_factory.mktemp("scripts")
    for script in SCRIPTS.glob("*.js"):
        shutil.copy(script, found)
    (found / "package.json").write_text('{"type": "module"}')
    return found


def called(folder: Path, script: str, expression: str) -> Any:
    """The JSON value of an expression in which `m` is the module."""
    program = f'import * as m from "./{script}"; console.log(JSON.stringify({expression}))'
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(folder: Path, left: dict[str, Any], right: dict[str, Any]) -> Any:
    found = f"m.differencesOf({json.dumps(left)}, {json.dumps(right)}, 0.25)"
    return called(folder, "compare.js", f"(({{ marked, rows }}) => [marked.map((set) => [...set]), rows])({found})")


def box(class_id: int, score: float, *corners: int) -> dict[str, Any]:
    return {"label": str(class_id), "class_id": class_id, "score": score, "box": corners}


def test_boxes_without_a_counterpart_are_marked(folder: Path) -> None:
    left = {"detections": [box(1, 0.9, 0, 0, 10, 10), box(2, 0.8, 20, 20, 30, 30), box(3, 0.1, 0, 0, 5, 5)]}
    right = {"detections": [box(1, 0.7, 0, 0, 10, 9), box(2, 0.8, 50, 50, 60, 60)]}

    marked, rows = differences(folder, left, right)

    assert marked == [[1], [1]]
    assert rows == [["1", "90.0 %", "70.0 %"], ["2", "80.0 %", "–"], ["2", "–", "80.0 %"]]


def test_equal_boxes_are_paired_once_even_without_an_area(folder: Path) -> None:
    same = {"detections": [box(1, 0.9, 3, 3, 3, 3), box(1, 0.9, 3, 3, 3, 3)]}
    fewer = {"detections": same["detections"][:1]}

    assert differences(folder, same, same) == [[[], []], []]
    assert differences(folder, same, fewer)[0] == [[1], []]


def test_classes_differ_in_the_best_and_in_scores(folder: Path) -> None:
    def answer(**scores: float) -> dict[str, Any]:
        return {"classes": [{"label": label, "score": score} for label, score in scores.items()]}

    _, rows = differences(folder, answer(cat=0.6, dog=0.4), answer(dog=0.7, cat=0.295))

    assert rows == [["best class", "cat", "dog"], ["cat", "60.0 %", "29.5 %"], ["dog", "40.0 %", "70.0 %"]]


def test_segments_of_another_size_are_marked(folder: Path) -> None:
    def answer(*areas: int) -> dict[str, Any]:
        segments = [{"label": str(index), "class_id": index, "area": area} for index, area in enumerate(areas)]
        return {"width": 10, "height": 10, "segments": segments}

    assert differences(folder, answer(50, 30), answer(50, 40)) == [[[1], [1]], [["1", "30.0 %", "40.0 %"]]]
    assert differences(folder, answer(50, 30), answer(50)) == [[[1], []], [["1", "30.0 %", "–"]]]


def test_load_is_what_changed_between_two_looks(folder: Path) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    before = generate_latest(registry).decode()
    for outcome, count in (("ok", 6), ("overloaded", 2)):
        metrics.requests_total.labels("digits", "1", outcome).inc(count)
    for _ in range(6):
        metrics.request_duration_seconds.labels("digits", "1").observe(0.02)
    metrics.slots_in_use.set(3)
    metrics.queue_wait_estimate_seconds.labels("digits").set(0.05)

    after = generate_latest(registry).decode()
    texts = f"m.figuresOf({json.dumps(before)}), m.figuresOf({json.dumps(after)}), 2"
    load = called(folder, "load.js", f"m.loadBetween({texts})")

    assert load == pytest.approx({"answeredPerS": 3, "refusedPerS": 1, "meanMs": 20, "inFlight": 3, "waitMs": 50})


@pytest.mark.parametrize(
    ("target", "files", "words"),
    [
        ({"kind": "policy", "name": ""}, ["a.jpg"], 'client.predict("a.jpg", model="m", score_threshold=0.5)'),
        ({"kind": "version", "name": "3"}, ["é\"'.jpg"], 'client.predict("é\\"\'.jpg", model="m", version="3", '),
        ({"kind": "label", "name": "stable"}, ["a.jpg", "b.jpg"], 'predict_many(["a.jpg", "b.jpg"], model="m", label='),
    ],
)
@pytest.mark.parametrize("has_key", [True, False])
def test_python_program_is_one(
    folder: Path, target: dict[str, str], files: list[str], words: str, has_key: bool
) -> None:
    ask = {
        "target": {"model": "m", **target},
        "files": [{"name": name, "type": "image/jpeg"} for name in files],
        "parameters": {"score_threshold": "0.5"},
    }

    program = called(
        folder, "snippets.js", f"m.pythonProgram('http://host/vision/', {json.dumps(ask)}, {json.dumps(has_key)})"
    )

    compile(program, "snippet", "exec")
    assert words in program
    assert 'Client("http://host/vision"' in program
    assert ("os.environ" in program) == has_key


def vector(*values: float) -> dict[str, Any]:
    return {"embedding": {"dim": len(values), "dtype": "float32", "values": values}}


def test_vectors_differ_by_their_cosine_or_their_size(folder: Path) -> None:
    assert differences(folder, vector(0.6, 0.8), vector(0.6, 0.8)) == [[[], []], []]
    assert differences(folder, vector(1, 0), vector(0.6, 0.8))[1] == [["cosine of both", "0.6000", "0.6000"]]
    assert differences(folder, vector(1, 0), vector(0, 0, 1))[1] == [["numbers", "2", "3"]]


def test_images_of_a_request_are_told_how_alike_they_are(folder: Path) -> None:
    answers = [vector(1, 0), {"error": {}}, vector(0.6, 0.8)]

    found = called(folder, "vectors.js", f"(all => m.likenesses(all[0], all))({json.dumps(answers)})")

    assert found == [{"label": "like image 3", "class_id": 2, "score": 0.6}]


def test_a_program_for_an_embedder_prints_its_vector(folder: Path) -> None:
    target = {"model": "finder", "kind": "policy", "name": ""}
    ask = {"task": "embed", "target": target, "files": [{"name": "a.jpg"}], "parameters": {}}

    program = called(folder, "snippets.js", f"m.pythonProgram('http://host/', {json.dumps(ask)}, false)")

    compile(program, "snippet", "exec")
    assert "answer.vector" in program
    assert "draw" not in program


def test_heat_is_the_more_opaque_the_more_it_looked(folder: Path) -> None:
    grid = base64.b64encode(bytes([0, 128, 255, 1])).decode()
    found = called(folder, "heat.js", f"[...m.heatColours({{ grid: '{grid}', rows: 2, columns: 2 }})]")
    assert found == [255, 0, 0, 0, 255, 128, 0, 96, 255, 255, 0, 191, 255, 1, 0, 1]


def test_words_are_quoted_in_programs(folder: Path) -> None:
    ask = {
        "target": {"model": "m", "kind": "policy", "name": ""},
        "files": [{"name": "a.png"}],
        "task": "classify",
        "parameters": {"top_k": "3", "explain": "grid", "trust": True},
    }
    program = called(folder, "snippets.js", f"m.pythonProgram('http://h/', {json.dumps(ask)}, false)")
    assert 'client.predict("a.png", model="m", explain="grid", top_k=3, trust=True)' in program


@pytest.mark.parametrize(
    ("score", "told"),
    [(0.5, "No class. Familiar (0.50)"), (1.5, "No class. Unfamiliar picture: check the answer (1.50)")],
)
def test_the_summary_says_whether_the_picture_is_familiar(folder: Path, score: float, told: str) -> None:
    trust = {"score": score, "threshold": 1.0, "familiar": score <= 1}
    assert called(folder, "panels.js", f"m.summaryOf({json.dumps({'classes': [], 'trust': trust})}, 0)") == told


def test_pictures_and_depths_say_what_they_are(folder: Path) -> None:
    picture = {"image": {"width": 12, "height": 8, "format": "png", "base64": "AA=="}}
    depth = {"depth": {"width": 4, "height": 2, "format": "png", "base64": "AA==", "scale": 1 / 65535, "offset": 2.0}}

    assert called(folder, "produced.js", f"m.producedText({json.dumps(picture)})") == "A picture of 12 × 8"
    assert called(folder, "produced.js", f"m.producedText({json.dumps(depth)})").endswith("from 2.00 to 3.00")
    assert differences(folder, picture, picture) == [[[], []], []]
    other = {"image": {**picture["image"], "base64": "AQ=="}}
    assert differences(folder, picture, other)[1] == [["picture", "A picture of 12 × 8", "A picture of 12 × 8"]]
