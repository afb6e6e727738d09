"""What the segments of a JPEG before its first scan say. Promises: pure, never raises, work bounded by a segment count.

Cameras, old converters and network cameras leave junk between segments, which decoders skip; so does this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

import msgspec
from PIL import ExifTags, Image

# A colour profile takes up to 255 segments, and 32 MB of metadata 500; Pillow needs microseconds for each.
MAX_SEGMENTS = 1_000
_START_OF_SCAN, _END_OF_IMAGE, _APP0, _APP1, _ADOBE, _APP15, _COMMENT = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables
_LOSSLESS_FRAMES = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
# FF00 is a coded FF, FFFF is filling, 01 and D0 to D8 are markers without a length.
_WITH_LENGTH = frozenset({*range(0x02, 0xD0), *range(0xD9, 0xFF)})
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # after junk
_TELLING = frozenset({_APP1, _START_OF_SCAN}) | _FRAMES
_LAST = frozenset({_START_OF_SCAN, _END_OF_IMAGE})
_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_SCAN_MARKER = b"\xff\xda"  # inside a scan, FF is followed by 00 or a restart marker


class JpegSegments(msgspec.Struct, frozen=True):
    """The segments up to the first scan."""

    frame: int  # the marker of the frame, which says how pixels are coded; 0: none was found
    bits: int  # per sample
    components: int
    scan_components: int  # in the first scan
    exif: tuple[bytes, ...]  # the APP1 segments that hold EXIF, in order
    xmp: bytes

    @property
    def is_baseline(self) -> bool:
        """Sequential, Huffman, 8 bits, with all its components in one scan."""
        return self.frame == 0xC0 and self.is_one_scan

    @property
    def is_one_scan(self) -> bool:
        """Decoders read one scan and stop: sequential with all components in it."""
        return self.frame in (0xC0, 0xC1, 0xC9) and 0 < self.components == self.scan_components

    @property
    def is_lossless(self) -> bool:
        return self.frame in _LOSSLESS_FRAMES

    @property
    def orientation(self) -> int:
        """1-8, by Pillow's rule: EXIF, of several segments together; XMP where EXIF does not say. 1 else."""
        if not self.exif and not self.xmp:
            return 1
        if self.exif:
            exif = Image.Exif()
            try:
                exif.load(self.exif[0] + b"".join(segment[len(_EXIF) :] for segment in self.exif[1:]))
                given = exif.get(ExifTags.Base.Orientation)
            except Exception:  # damaged metadata is no reason to refuse pixels, and raises a dozen kinds of errors
                given = None
            if given is not None:
                return given if isinstance(given, int) else 1
        found = _XMP_ORIENTATION.search(self.xmp)
        return 1 if found is None else int(found[1])


def jpeg_segments(data: bytes) -> JpegSegments:
    """Of any bytes: what is missing is 0 or empty."""
    frame = bits = components = scan_components = 0
    exif: list[bytes] = []
    xmp = b""
    for marker, start, end in _segments(data, _TELLING):
        if marker == _APP1:
            if data.startswith(_EXIF, start + 4):
                exif.append(data[start + 4 : end])
            elif data.startswith(_XMP, start + 4):
                xmp = data[start + 4 + len(_XMP) : end]
        elif marker in _FRAMES:
            frame = marker
            bits, components = _byte(data, start + 4), _byte(data, start + 9)
        elif marker == _START_OF_SCAN:
            scan_components = _byte(data, start + 4)
    return JpegSegments(frame, bits, components, scan_components, tuple(exif), xmp)


def _byte(data: bytes, position: int) -> int:
    return data[position] if position < len(data) else 0


def scan_count(data: bytes) -> int:
    """At most so many scans are in it."""
    return data.count(_SCAN_MARKER)


def without_metadata(data: bytes) -> bytes:
    """The same pixels without comments, metadata, and junk between the segments before the first scan."""
    kept = [b"\xff\xd8"]
    for marker, start, end in _segments(data, _WITH_LENGTH):
        if marker == _START_OF_SCAN:
            kept.append(data[start:])
        elif not (_APP0 < marker <= _APP15 or marker == _COMMENT) or marker == _ADOBE:
            kept.append(data[start:end])
    return b"".join(kept)


def _segments(data: bytes, wanted: Set[int]) -> Iterator[tuple[int, int, int]]:
    """(marker, its position, its end) of the wanted ones, up to the first scan."""
    position, count, size = 2, 0, len(data)
    while position + 3 < size and count < MAX_SEGMENTS:
        marker = data[position + 1]
        if data[position] != 0xFF or marker not in _WITH_LENGTH:
            found = _MARKER.search(data, position)
            if found is None:
                return
            position, count = found.start(), count + 1
            continue
        end = position + 2 + (data[position + 2] << 8 | data[position + 3])
        if marker in wanted:
            yield marker, position, end
        if marker in _LAST:
            return
        position = end if end > position + 4 else position + 4
        count += 1
