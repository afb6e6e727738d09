"""Pictures as users' tools write them: legal but rare, or slightly broken; each opens in every other program.

Built from what Pillow writes, so that none has to be kept. `TAKEN` is to be read with Pillow's pixels, `REFUSED` with a
reason a person understands.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.support.images import encoded

UInt8Array = NDArray[np.uint8]
Factors = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def picture(width: int = 128, height: int = 96) -> Image.Image:
    """Smooth, and different in every corner, so that turns and mix-ups are seen."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8))


def jpeg(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or picture(), "JPEG", quality=90, **options)


def pillow_pixels(data: bytes) -> UInt8Array:
    """Upright, as Pillow reads it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def before(data: bytes, marker: int, inserted: bytes) -> bytes:
    """`inserted` before the first segment of a kind."""
    at = data.index(bytes((0xFF, marker)))
    return data[:at] + inserted + data[at:]


def app1(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def exif(orientation: int) -> bytes:
    """As an APP1 segment has it."""
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01" + struct.pack(
        ">HHI", orientation, 0, 0
    )


def xmp(orientation: int) -> bytes:
    return (
        b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation
    )


def after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def sampled(*factors: tuple[int, int], progressive: bool = False) -> bytes:
    """A JPEG with these sampling factors per component, as lossless rotation and rare encoders write them.

    Pillow writes RGB with one table for all components, so its blocks can be read in any order: the frame header gets
    other factors and the size at which they use all blocks. What is to be seen does not matter, its pixels do.
    """
    blocks = sum(across * down for across, down in factors)
    data = bytearray(jpeg(picture(8 * 16, 8 * blocks), keep_rgb=True))
    frame = data.index(b"\xff\xc0")
    wide, high = max(across for across, _ in factors), max(down for _, down in factors)
    struct.pack_into(">HH", data, frame + 5, 8 * high * 6, 8 * wide * 8)  # 48 units, as 3 * 16 * blocks need
    for index, (across, down) in enumerate(factors):
        data[frame + 11 + 3 * index] = across << 4 | down
        data[frame + 10 + 3 * index] = index + 1
    scan = data.index(b"\xff\xda")
    data[scan + 5 : scan + 11 : 2] = b"\x01\x02\x03"
    adobe = data.index(b"\xff\xee")
    del data[adobe : adobe + 16]
    return bytes(data)


def ycck() -> bytes:
    data = bytearray(encoded(picture().convert("CMYK"), "JPEG", subsampling=2))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def with_restarts() -> bytes:
    return jpeg(restart_marker_rows=1)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A chunk after the header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


def grey16(bits: int) -> bytes:
    """A PNG of 16-bit samples that use `bits` of them."""
    ramp = np.linspace(0, 2**bits - 1, 64 * 48).astype(np.uint16).reshape(48, 64)
    return encoded(Image.fromarray(ramp), "PNG")


_BASE = jpeg()
_PNG = encoded(picture(), "PNG")
_RESTARTS = with_restarts()
_TEXT = zlib.compress(bytes(3_000_000))
TURNED_XMP = after_start(_BASE, app1(xmp(6)))
TAKEN: dict[str, tuple[bytes, UInt8Array]] = {
    name: (data, pillow_pixels(data if same is None else same))
    for name, data, same in (
        ("sampled 4x1", sampled((4, 1), (1, 1), (1, 1)), None),
        ("sampled 1x4", sampled((1, 4), (1, 1), (1, 1)), None),
        ("sampled 4x2", sampled((4, 2), (1, 1), (1, 1)), None),
        ("sampled 2x4", sampled((2, 4), (1, 1), (1, 1)), None),
        ("sampled 3x1", sampled((3, 1), (1, 1), (1, 1)), None),
        ("sampled 1x3", sampled((1, 3), (1, 1), (1, 1)), None),
        ("sampled 4x1 2x1 2x1", sampled((4, 1), (2, 1), (2, 1)), None),
        ("sampled 1x1 2x2 2x2", sampled((1, 1), (2, 2), (2, 2)), None),
        ("sampled 2x2 2x1 1x2", sampled((2, 2), (2, 1), (1, 2)), None),
        ("junk before DQT", before(_BASE, 0xDB, b"\x00"), None),
        ("FF00 before DQT", before(_BASE, 0xDB, b"\xff\x00\xff\x00"), None),
        ("junk before SOF", before(_BASE, 0xC0, b"\x00\x01"), None),
        ("junk before DHT", before(_BASE, 0xC4, b"\x00"), None),
        ("junk before SOS", before(_BASE, 0xDA, b"\x00"), None),
        ("APP0 shorter than its content", _BASE[:4] + b"\x00\x0e" + _BASE[6:], None),
        ("junk and EXIF", after_start(_BASE, app1(exif(6)), b"\x00\x00"), None),
        ("fill bytes before EXIF", after_start(_BASE, b"\xff\xff\xff", app1(exif(8))), None),
        ("EXIF in two segments", after_start(_BASE, app1(exif(6)[:20]), app1(b"Exif\x00\x00" + exif(6)[20:])), None),
        ("two EXIF segments", after_start(_BASE, app1(exif(3)), app1(exif(6))), None),
        ("XMP only", TURNED_XMP, None),
        ("XMP element", after_start(_BASE, app1(xmp(0).replace(b'="0"', b">5</tiff:Orientation>"))), None),
        ("EXIF against XMP", after_start(_BASE, app1(exif(3)), app1(xmp(6))), None),
        ("MPO turned by EXIF", encoded(picture(), "MPO", save_all=True, append_images=[picture()], exif=exif(6)), None),
        ("CMYK", encoded(picture().convert("CMYK"), "JPEG"), None),
        ("CMYK 4:2:0", encoded(picture().convert("CMYK"), "JPEG", subsampling=2), None),
        ("YCCK 4:2:0", ycck(), None),
        ("RGB JPEG", jpeg(keep_rgb=True), None),
        ("missing restart marker", _RESTARTS.replace(b"\xff\xd3", b"", 1), None),
        ("junk before restart marker", _RESTARTS.replace(b"\xff\xd3", b"\x00\x00\x00\xff\xd3", 1), None),
        ("PNG with a long text", with_chunk(_PNG, b"zTXt", b"c\x00\x00" + _TEXT), _PNG),
        ("PNG with a large profile", with_chunk(_PNG, b"iCCP", b"ICC Profile\x00\x00" + _TEXT), _PNG),
        ("PNG with a damaged text", _PNG[:33] + b"\x00\x00\x00\x04tEXtabcd\x00\x00\x00\x00" + _PNG[33:], _PNG),
        ("PNG turned by EXIF", encoded(picture(), "PNG", exif=exif(6)), None),
        ("PNG turned by XMP", with_chunk(_PNG, b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + xmp(6)[29:]), None),
        ("WebP turned by XMP", encoded(picture(), "WEBP", lossless=True, xmp=xmp(6)[29:]), None),
    )
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "lossless": (_BASE.replace(b"\xff\xc0", b"\xff\xc3", 1), "lossless JPEGs are not taken"),
    "12 bits": (_BASE.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c", 1), "12 bits per sample"),
    "PNG header checksum": (_PNG[:29] + b"\x00\x00\x00\x00" + _PNG[33:], "its header cannot be read"),
    "no end of image": (_BASE[:-2], "truncated"),
    "cut off": (_BASE[: len(_BASE) // 2], "truncated"),
    "cut off CMYK": (encoded(picture().convert("CMYK"), "JPEG")[:-400], "truncated"),
}
