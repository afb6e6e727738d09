"""Finds picture files below a folder; hidden files, archive leftovers and dead links are skipped and counted."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from saccade.export.data.findings import Findings

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_JUNK = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini", "lost+found"})


def is_junk(name: str) -> bool:
    """Tells whether a tool, not a person, left the file or folder there: `._a.jpg`, `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in _JUNK


def folders_in(root: Path, findings: Findings) -> list[Path]:
    """Returns sorted folders without those that tools leave behind, and without links that lead nowhere new."""
    above, folders = _real_and_above(root), []
    for path in sorted(root.iterdir()):
        if path.is_symlink() and not path.exists():
            findings.skip("a link to nothing", path)
        elif path.is_dir():
            if is_junk(path.name):
                findings.skip("left by a tool", path)
            elif os.path.realpath(path) in above:
                findings.skip("a link in a circle", path)
            else:
                folders.append(path)
    return folders


def _real_and_above(root: Path) -> set[str]:
    """Returns the real path of a folder and of those that hold it; a link to one of them leads in a circle."""
    real = Path(os.path.realpath(root))
    return {str(real), *(str(parent) for parent in real.parents)}


def pictures_below(root: Path, findings: Findings) -> list[Path]:
    """Returns sorted pictures at any depth; links to folders are followed once."""
    pictures: list[Path] = []
    seen = _real_and_above(root) - {os.path.realpath(root)}
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            findings.skip("a link in a circle", Path(place))
            folders.clear()
            continue
        seen.add(real)
        for name in [name for name in folders if is_junk(name)]:
            findings.skip("left by a tool", Path(place, name))
        folders[:] = sorted(name for name in folders if not is_junk(name))
        pictures += [path for name in names if _is_picture(path := Path(place, name), findings)]
    return sorted(pictures)


def _is_picture(path: Path, findings: Findings) -> bool:
    if is_junk(path.name):
        findings.skip("left by a tool", path)
    elif not path.exists():
        findings.skip("a link to nothing", path)
    elif path.suffix.lower() not in IMAGE_SUFFIXES:
        findings.skip("not JPEG, PNG, WebP or BMP by its name", path)
    elif path.is_file():
        return True
    return False


def text_of(path: Path) -> str:
    """Decodes a text file in any common encoding, without its byte-order mark. Raises OSError or ValueError."""
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if utf16 else "utf-8-sig")
