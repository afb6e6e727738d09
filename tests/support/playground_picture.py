"""Photographs the playground of a running server for README.md, in a headless Chromium.

python -m tests.support.playground_picture http://127.0.0.1:8000 digits-detector IMAGE tests/api/playground.png
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.browser import Page, opened_tab, running_chromium

SIZE = {"width": 1200, "height": 900}
COLOURS = 128  # a quarter of the bytes, and nobody sees it


def picture(page: Page, model: str, image: Path) -> Image.Image:
    """The page once it shows the model's answer for the image."""
    page.call("Emulation.setDeviceMetricsOverride", **SIZE, deviceScaleFactor=1, mobile=False)
    page.wait_for(f"document.getElementById('model-{model}') !== null")
    page.choose_model(model)
    page.choose_files(image)
    page.wait_for("!document.getElementById('answer').hidden")
    page.evaluate("document.activeElement.blur()")
    shot = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    whole = Image.open(io.BytesIO(shot)).convert("RGB")
    return whole.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


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
        picture(page, given.model, given.image.resolve()).save(given.out, "PNG", optimize=True)


if __name__ == "__main__":
    main()
