"""The networks that are compared, as data. Both environments read it, so it imports neither saccade nor the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LIBRARY = "ultralytics"
VERSION = "8.4.190"
Form = Literal["dynamic", "static"]
FORMS: tuple[Form, ...] = ("dynamic", "static")
_SCENES = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of the library."""

    model: str  # its name there
    task: Literal["detect", "segment", "classify"] = "detect"
    side: int = 640  # of the input, pixels
    is_end_to_end: bool = False  # with the head that needs no suppression, which the library takes for `nms=False`
    is_trained: bool = False  # on digit scenes; otherwise seeded

    @property
    def id(self) -> str:
        return f"{self.model}{'-end-to-end' if self.is_end_to_end else ''}{'-trained' if self.is_trained else ''}"

    @property
    def words(self) -> dict[str, Any]:
        """Arguments of the library's `export` and `predict`; everything else is its default."""
        return {"imgsz": self.side, **({"nms": False} if self.is_end_to_end else {})}


ENTRIES = (
    Entry("yolov8n"),
    Entry("yolo11n", side=320),
    Entry("yolov10n", side=320),
    Entry("yolov10n", side=320, is_end_to_end=True),
    Entry("yolo26n", side=320),
    Entry("yolo26n", side=320, is_end_to_end=True),
    Entry("yolov5nu", side=320),
    Entry("yolov8n-seg", "segment", side=320),
    Entry("yolo11n-seg", "segment", side=320),
    Entry("yolo26n-seg", "segment", side=320),
    Entry("yolo26n-seg", "segment", side=320, is_end_to_end=True),
    Entry("yolov8n-cls", "classify", side=224),
    Entry("yolo11n-cls", "classify", side=224),
    Entry("yolov8n", side=320, is_trained=True),
    Entry("yolo11n-seg", "segment", side=320, is_trained=True),
)


def compared_pictures(entry: Entry, photographs: Path, scenes: Path) -> list[Path]:
    """Every photograph; and scenes that a trained network has not seen, since photographs show hardly any digits."""
    shown = sorted((scenes / "images" / "test").iterdir())[:_SCENES] if entry.is_trained else []
    return [*sorted(photographs.iterdir()), *shown]


def entry_of(name: str) -> Entry:
    """Raises KeyError."""
    return {entry.id: entry for entry in ENTRIES}[name]
