"""The playground in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.support.browser import CHROMIUM, Page
from tests.support.images import encoded
from tests.support.server import Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH")]


ANSWERED = "!document.getElementById('answer').hidden"


def test_page_lists_models_without_a_complaint_or_a_foreign_request(page: Page, server: Server) -> None:
    names = page.evaluate("[...document.querySelectorAll('.model-name')].map((node) => node.textContent)")
    urls = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")

    assert names == ["classifier", "detector", "instances", "segmenter"]
    assert "0.900" in page.text("figures")
    assert "1,000 images/s" in page.text("figures")
    assert {url.startswith(server.base_url) for url in urls} == {True}
    assert page.complaints == []


def test_chosen_image_is_classified_with_timings_and_a_command(page: Page, image: Path) -> None:
    page.choose_model("classifier")
    page.set_value("top-k", "3")

    page.choose_files(image)
    page.wait_for(ANSWERED)

    assert page.evaluate("document.querySelectorAll('#results li').length") == 3
    assert "78.4 %" in page.text("results")
    assert "infer" in page.text("timings")
    assert "/v1/models/classifier/predict?top_k=3" in page.text("curl")
    assert "--data-binary '@red.png'" in page.text("curl")
    assert page.complaints == []


def test_threshold_filters_without_asking_again(page: Page, image: Path) -> None:
    page.choose_model("detector")
    page.choose_files(image)
    page.wait_for(ANSWERED)
    asked = page.predict_count()

    page.set_value("threshold", "0.5")
    shown = page.evaluate("document.querySelectorAll('#results li').length")
    page.set_value("threshold", "0.9")
    left = page.evaluate("document.querySelectorAll('#results li').length")

    assert (shown, left) == (1, 0)
    assert "score_threshold=0.9" in page.text("curl")
    assert page.predict_count() == asked


@pytest.mark.parametrize("model", ["segmenter", "instances"])
@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon"])
def test_mask_is_drawn_in_the_colour_of_its_legend(page: Page, image: Path, mask_format: str, model: str) -> None:
    page.choose_model(model)
    page.set_value("mask-format", mask_format)
    page.choose_files(image)
    page.wait_for(ANSWERED)

    page.set_value("opacity", "1")

    legend = page.evaluate("getComputedStyle(document.querySelector('#results .swatch')).backgroundColor")
    assert legend == "rgb({}, {}, {})".format(*page.centre_pixel())


def test_damaged_image_is_explained_with_its_request_id(page: Page, damaged: Path) -> None:
    page.choose_files(damaged)
    page.wait_for("document.querySelector('#problem .problem') !== null")

    assert "Image cannot be used" in page.text("problem")
    assert "Request id" in page.text("problem")
    assert not page.evaluate(ANSWERED)


def test_damaged_image_among_others_leaves_their_answers(page: Page, image: Path, damaged: Path) -> None:
    page.choose_model("classifier")
    page.choose_files(image, damaged)
    page.wait_for(ANSWERED)
    first = page.text("results")

    page.evaluate("document.querySelectorAll('.thumbnail')[1].click()")

    assert "78.4 %" in first
    assert "Image cannot be used" in page.text("results")
    assert page.evaluate("document.querySelectorAll('.thumbnail.has-failed').length") == 1


def test_key_is_sent_but_never_shown(page: Page, image: Path) -> None:
    page.choose_files(image)
    page.wait_for(ANSWERED)

    page.set_value("key", "very-secret")
    page.wait_for("document.getElementById('curl').textContent.includes('Authorization')")

    assert "$SACCADE_API_KEY" in page.text("curl")
    assert "very-secret" not in page.evaluate("document.documentElement.outerHTML")


def test_page_fits_a_narrow_phone(page: Page, image: Path) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=2, mobile=True)
    page.choose_files(image)
    page.wait_for(ANSWERED)

    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_run_lengths_are_read_as_pycocotools_writes_them(page: Page) -> None:
    masks = [np.random.default_rng(seed).random((37, 53)) < density for seed, density in enumerate((0, 0.02, 0.5, 1))]
    blocks = np.zeros((600, 800), bool)
    blocks[:, 200:] = True
    blocks[100:300, 250:700] = False
    masks.append(blocks)
    for mask in masks:
        encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        rle = {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
        height, width = mask.shape

        read = page.evaluate(
            f"""import("/playground/masks.js").then(({{ maskFromRle }}) =>
                maskFromRle({json.dumps(rle)}, {width}, {height}).join(""))"""
        )

        assert read == "".join("01"[int(inside)] for inside in mask.ravel())


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_turned_photo_is_shown_as_the_answer_is(page: Page, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored as 60 x 40, upright 40 x 60
    photo = base64.b64encode(encoded(Image.new("RGB", (60, 40)), "JPEG", exif=exif)).decode()

    shown = page.evaluate(
        f"""import("/playground/pictures.js").then(async ({{ bitmapOf, fitBitmap }}) => {{
            const bytes = Uint8Array.from(atob("{photo}"), (letter) => letter.charCodeAt(0));
            const file = new Blob([bytes], {{ type: "image/jpeg" }});
            const image = {{ file, bitmap: await bitmapOf(file) }};
            await fitBitmap(image, {{ width: {size[0]}, height: {size[1]} }});
            return [image.bitmap.width, image.bitmap.height];
        }})"""
    )

    assert shown == list(size)


def test_docs_show_every_operation_without_a_foreign_request(page: Page, server: Server) -> None:
    page.call("Page.navigate", url=server.base_url + "/docs")
    page.wait_for("document.querySelector('.operation') !== null")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")

    shown = page.evaluate("[...document.querySelectorAll('.operation summary code')].map((node) => node.textContent)")
    urls = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")

    assert set(shown) == set(server.client.get("/openapi.json").json()["paths"])
    assert "score_threshold" in page.text("operations")
    assert '"multipart/form-data"' not in page.text("operations")
    assert "multipart/form-data" in page.text("operations")
    assert {url.startswith(server.base_url) for url in urls} == {True}
    assert page.complaints == []


def test_pages_work_behind_a_prefix(page: Page, repository: Path, tmp_path: Path, image: Path) -> None:
    with running_server(repository, tmp_path, root_path="/vision") as proxied:
        page.call("Page.navigate", url=proxied.base_url + "/vision/")
        page.wait_for("document.querySelector('.model') !== null")
        page.choose_model("classifier")
        page.choose_files(image)
        page.wait_for(ANSWERED)
        assert f"{proxied.base_url}/vision/v1/models/classifier/predict" in page.text("curl")

        page.call("Page.navigate", url=proxied.base_url + "/vision/docs")
        page.wait_for("document.querySelector('.operation') !== null")
        urls = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert {url.startswith(proxied.base_url + "/vision/") for url in urls} == {True}
    assert page.complaints == []
