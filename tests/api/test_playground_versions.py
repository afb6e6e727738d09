"""The playground's views of versions, sources and load in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saccade.models.contract.replay import REPLAY_FILE, replay_bytes
from saccade.models.contract.specs import Task
from saccade.service.repository.disagreements import Disagreement, keep_disagreement
from tests.support.browser import CHROMIUM, Page, opened_tab
from tests.support.server import Server, call_saccade, running_server
from tests.support.versions import SIDE, manifest_for, publish, with_files

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH")]

ANSWERED = "!document.getElementById('answer').hidden"
KEY = "the-key"
SETTINGS = {"allow_unjudged": "true", "open_without_key": "docs"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of each model: the second classifier has other labels, the second detector was never judged."""
    root = tmp_path_factory.mktemp("repository")
    pictures = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    pictures[:, 0, 0, 0] = (51, 102, 153)
    files = {"model.onnx": b"weights", "report.html": b"<p>report", REPLAY_FILE: replay_bytes(pictures, {})}
    tasks = {"classifier": Task.CLASSIFY, "detector": Task.DETECT, "segmenter": Task.SEGMENT, "shadowed": Task.CLASSIFY}
    for name, task in tasks.items():
        for version in (1, 2):
            manifest = manifest_for(name, version, task, judged=(name, version) != ("detector", 2))
            if (name, version) == ("classifier", 2):
                manifest = manifest.model_copy(update={"labels": tuple("abcdefghij")})
            publish(root, with_files(manifest, files), files=files)
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys").write_text(f"{KEY} scopes=predict,read,admin", "ascii")
    with running_server(repository, folder, **SETTINGS, api_keys_file=folder / "keys") as running:
        yield running


def disagreement(number: int) -> Disagreement:
    return Disagreement(
        model="shadowed",
        stable=1,
        candidate=2,
        request_id=f"id-{number}",
        at="2026-11-29T20:00:00+00:00",
        agreement=0.1 * number,
        figures={},
        stable_said="3",
        candidate_said="5",
    )


@pytest.fixture
def unlocked(chromium_port: int, server: Server) -> Iterator[Page]:
    """The playground with the key, its models shown."""
    with opened_tab(chromium_port, server.base_url, KEY) as page:
        yield page


def test_unjudged_and_unsigned_versions_are_flagged(unlocked: Page) -> None:
    flags = unlocked.evaluate(
        """[...document.querySelectorAll(".model")].map((model) =>
            [...model.querySelectorAll(".flag")].map((flag) => flag.textContent))"""
    )

    assert flags == [["unsigned"], ["unjudged", "unsigned"], ["unsigned"], ["unsigned"]]


def test_pictures_of_the_model_are_asked_about(unlocked: Page) -> None:
    unlocked.choose_model("classifier")

    unlocked.press("samples")
    unlocked.wait_for(ANSWERED)

    assert unlocked.evaluate("document.querySelectorAll('.thumbnail').length") == 3
    assert "20.0 %" in unlocked.text("results")
    assert unlocked.complaints == []


def test_two_versions_stand_side_by_side_with_what_differs(unlocked: Page, image: Path) -> None:
    unlocked.choose_model("classifier")
    unlocked.choose_files(image)
    unlocked.wait_for(ANSWERED)
    assert unlocked.evaluate("document.getElementById('rival-figure').hidden")

    unlocked.set_value("rival", "version:1")
    unlocked.wait_for("!document.getElementById('differences').hidden")

    assert "best class" in unlocked.text("differences")
    assert (unlocked.text("caption"), unlocked.text("rival-caption")) == ("version 2, fp32", "version 1, fp32")
    unlocked.set_value("rival", "")
    unlocked.wait_for("document.getElementById('rival-figure').hidden")
    assert unlocked.complaints == []


@pytest.mark.parametrize("model", ["detector", "segmenter"])
def test_versions_that_agree_are_said_to(unlocked: Page, image: Path, model: str) -> None:
    unlocked.choose_model(model)
    unlocked.choose_files(image)
    unlocked.wait_for(ANSWERED)

    unlocked.set_value("rival", "version:1")
    unlocked.wait_for("!document.getElementById('differences').hidden")

    assert unlocked.text("differences") == "No difference in image 1"


def test_pixels_on_which_masks_differ_are_drawn(unlocked: Page) -> None:
    pixels = unlocked.evaluate(
        """import("/playground/drawing.js").then(({ maskDifference }) => {
            const layer = (x) => {
                const canvas = Object.assign(document.createElement("canvas"), { width: 10, height: 10 });
                canvas.getContext("2d").fillRect(x, 0, 5, 10);
                return [{ canvas }];
            };
            const answer = { width: 10, height: 10, segments: [{ class_id: 1 }] };
            const found = maskDifference([answer, answer], [layer(0), layer(2)]);
            const row = found.getContext("2d").getImageData(0, 5, 10, 1).data;
            return [...Array(10).keys()].map((x) => row[4 * x + 3] > 0 ? 1 : 0);
        })"""
    )

    assert pixels == [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]


def test_report_is_a_link_of_its_version(unlocked: Page) -> None:
    unlocked.choose_model("detector")

    links = unlocked.evaluate("[...document.querySelectorAll('#figures a')].map((link) => link.getAttribute('href'))")
    unlocked.evaluate("document.querySelector('#figures a').click()")
    # A link cannot send the key, so the page asks for the report itself.
    unlocked.wait_for(
        """performance.getEntriesByType("resource").some((entry) =>
            entry.name.endsWith("/report") && entry.responseStatus === 200)"""
    )

    assert links == [f"v1/models/detector/versions/{version}/report" for version in (2, 1)]
    assert unlocked.complaints == []


def test_camera_gives_a_picture_and_is_closed(unlocked: Page) -> None:
    unlocked.choose_model("classifier")

    unlocked.press("camera")
    unlocked.wait_for("document.activeElement.id === 'shoot'")
    unlocked.press("camera-off")
    assert unlocked.evaluate("document.getElementById('video').srcObject === null")
    unlocked.press("camera")
    unlocked.wait_for("document.activeElement.id === 'shoot'")
    unlocked.press("shoot")
    unlocked.wait_for(ANSWERED)

    assert "camera.jpg" in unlocked.text("curl")
    assert unlocked.evaluate("document.getElementById('camera-frame').hidden")
    assert unlocked.evaluate("document.getElementById('video').srcObject === null")


def test_load_is_shown_while_it_is_watched(unlocked: Page, image: Path) -> None:
    unlocked.choose_model("classifier")
    unlocked.evaluate("document.getElementById('load-fold').open = true")
    unlocked.wait_for("document.getElementById('load').textContent.includes('requests/s')")

    unlocked.choose_files(image)
    unlocked.wait_for("document.getElementById('load').textContent.includes(' ms')")

    assert "in flight" in unlocked.text("load")
    assert unlocked.evaluate("document.getElementById('load-line').getAttribute('points')")


def test_the_same_request_is_shown_as_a_python_program(unlocked: Page, image: Path, server: Server) -> None:
    unlocked.choose_model("classifier")
    unlocked.set_value("top-k", "3")
    unlocked.choose_files(image)
    unlocked.wait_for(ANSWERED)

    unlocked.set_value("language", "python")
    program = unlocked.text("curl")

    compile(program, "snippet", "exec")
    assert f'Client("{server.base_url}", key=os.environ["SACCADE_API_KEY"])' in program
    assert 'client.predict("red.png", model="classifier", top_k=3)' in program
    unlocked.press("copy")
    unlocked.wait_for("['Copied', 'Selected'].includes(document.getElementById('copy').textContent)")


def test_every_control_can_be_reached_and_has_a_name(unlocked: Page, image: Path) -> None:
    unlocked.choose_files(image)
    unlocked.wait_for(ANSWERED)

    nameless = unlocked.evaluate(
        """[...document.querySelectorAll("button, input, select, a, summary")].filter((control) =>
            control.tabIndex < 0 || !(control.textContent.trim() || control.labels?.length || control.ariaLabel
                || control.getAttribute("aria-labelledby"))).map((control) => control.outerHTML)"""
    )

    assert nameless == []


def run_lengths_of_columns(first: int) -> str:
    """A mask of 1920x1080 pixels with 300 columns from `first` on."""
    mask = np.zeros((1080, 1920), np.uint8, order="F")
    mask[:, first : first + 300] = 1
    return coco_mask.encode(mask)["counts"].decode("ascii")


@pytest.mark.parametrize("form", ["polygons", "rle"])
def test_masks_of_a_large_answer_are_drawn_at_once(unlocked: Page, form: str) -> None:
    """A tenth of a second is the aim where nothing else runs; ten times that is a mistake anywhere."""
    counts = json.dumps({x: run_lengths_of_columns(x) for x in (0, 400, 800)})
    milliseconds = unlocked.evaluate(
        f"""import("/playground/drawing.js").then(async ({{ drawScene, maskLayers }}) => {{
            const [form, counts] = ["{form}", {counts}];
            const [width, height] = [1920, 1080];
            const source = Object.assign(document.createElement("canvas"), {{ width, height }});
            source.getContext("2d").fillRect(0, 0, width, height);
            const bitmap = await createImageBitmap(source);
            const polygon = (x) => ({{ exterior: [[x, 0], [x + 300, 0], [x + 300, height], [x, height]], holes: [] }});
            const size = [height, width];
            const masks = {{ polygons: (x) => [polygon(x)], rle: (x) => ({{ size, counts: counts[x] }}) }};
            const segments = [0, 400, 800].map((x, index) =>
                ({{ label: "a", class_id: index, area: 1, [form]: masks[form](x) }}));
            const prediction = {{ width, height, segments }};
            const times = [];
            for (let count = 0; count < 20; count++) {{
                const start = performance.now();
                const layers = await maskLayers(prediction);
                drawScene(document.getElementById("canvas"), bitmap, prediction, layers,
                    {{ room: {{ width, height }}, threshold: 0, opacity: 0.5, highlight: null }});
                document.getElementById("canvas").getContext("2d").getImageData(0, 0, 1, 1); // waits for it
                times.push(performance.now() - start);
            }}
            return Math.min(...times);
        }})"""
    )

    print(f"{form}: {milliseconds:.0f} ms")
    assert milliseconds <= 1000


def test_what_a_shadow_said_otherwise_stands_side_by_side(
    unlocked: Page, server: Server, repository: Path, image: Path
) -> None:
    for number, picture in enumerate((image.read_bytes(), None)):
        keep_disagreement(repository, disagreement(number), picture)
    for change in (("promote", "shadowed", "1"), ("shadow", "shadowed", "2")):
        assert call_saccade("rollout", *change, "--repository", str(repository)).returncode == 0
    unlocked.choose_model("shadowed")
    unlocked.wait_for("!document.getElementById('disagreements').hidden")

    unlocked.press("disagreements")
    unlocked.wait_for(ANSWERED)

    assert unlocked.evaluate("[document.getElementById('target').value, document.getElementById('rival').value]") == [
        "version:1",
        "version:2",
    ]
    assert unlocked.evaluate("document.getElementById('canvas').getAttribute('aria-label')").startswith("3 became 5")
