"""Photographs the playground of a running server for README.md, in a headless Chromium.

python -m tests.support.playground_picture http://127.0.0.1:8000 digits-detector IMAGE tests/api/playground.png
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path

import httpx
from websockets.sync.client import connect

from tests.api.test_playground_browser import Page, running_chromium

SIZE = {"width": 1200, "height": 900}


def picture(page: Page, model: str, image: Path) -> bytes:
    """A PNG of the page once it shows the model's answer for the image."""
    page.call("Emulation.setDeviceMetricsOverride", **SIZE, deviceScaleFactor=1, mobile=False)
    page.wait_for(f"document.getElementById('model-{model}') !== null")
    page.choose_model(model)
    page.choose_files(image)
    page.wait_for("!document.getElementById('answer').hidden")
    page.evaluate("document.activeElement.blur()")
    return base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Photographs the playground of a running server.")
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile, running_chromium(Path(profile)) as port:
        tab = httpx.put(f"http://127.0.0.1:{port}/json/new").json()
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
            page = Page(connection)
            page.call("Page.navigate", url=given.url)
            given.out.write_bytes(picture(page, given.model, given.image.resolve()))


if __name__ == "__main__":
    main()
