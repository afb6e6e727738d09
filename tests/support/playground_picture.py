"""Photographs the playground of a running server for README.md, in a headless Chromium.

python -m tests.support.playground_picture http://127.0.0.1:8000 digits-detector IMAGE tests/api/playground.png
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path

from tests.support.browser import Page, opened_tab, running_chromium

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
    with (
        tempfile.TemporaryDirectory() as profile,
        running_chromium(Path(profile)) as port,
        opened_tab(port, given.url) as page,
    ):
        given.out.write_bytes(picture(page, given.model, given.image.resolve()))


if __name__ == "__main__":
    main()
