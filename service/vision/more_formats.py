"""Image formats beyond the four that are always taken. Promises: read only where a setting allows it, by Pillow.

They are off by default: their decoders are larger, less looked at, and not part of what a model was measured with.
"""

from __future__ import annotations

import importlib
from collections.abc import Set
from functools import lru_cache

from saccade.service.errors import SettingsError, UnsupportedMedia

# By name in SACCADE_IMAGE_FORMATS: what Pillow calls it.
PILLOW_NAMES = {"gif": "GIF", "tiff": "TIFF", "avif": "AVIF", "jpeg2000": "JPEG2000", "heif": "HEIF", "jxl": "JXL"}
# The modules that teach Pillow to read some of them, and the packages that have these.
_PLUGINS = {"heif": ("pillow_heif", "pillow-heif"), "jxl": ("pillow_jxl", "pillow-jxl-plugin")}
_MAGICS = (
    (0, b"GIF8", "gif"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (4, b"jP  ", "jpeg2000"),
    (0, b"\xff\x4f\xff\x51", "jpeg2000"),
    (4, b"JXL ", "jxl"),
    (0, b"\xff\x0a", "jxl"),
)
_BRANDS = slice(8, 64)  # of a file in ISO's base media format: what it is, then what it is compatible with


def other_format(data: bytes) -> str | None:
    """Its name, as the first bytes tell; None for what is no image of these formats."""
    if data.startswith(b"ftyp", 4):
        brands = data[_BRANDS]
        return "avif" if b"avif" in brands or b"avis" in brands else "heif"
    return next((name for offset, magic, name in _MAGICS if data.startswith(magic, offset)), None)


def ensure_taken(name: str, allowed: Set[str]) -> None:
    """Raises UnsupportedMedia where the setting does not allow it."""
    if name not in allowed:
        raise UnsupportedMedia(
            f"{PILLOW_NAMES[name]} images are not taken: send JPEG, PNG, WebP or BMP, or start the server with "
            f"SACCADE_IMAGE_FORMATS={name}"
        )


@lru_cache
def opened_plugin(name: str) -> str:
    """Pillow's name of the format, once Pillow can read it. Raises SettingsError where it cannot."""
    from PIL import Image  # late: settings.py knows the names, in processes that read no image

    if name in _PLUGINS:
        module_name, package = _PLUGINS[name]
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise SettingsError(
                f"SACCADE_IMAGE_FORMATS: {name} needs the package {package}, which is not installed"
            ) from error
        getattr(module, "register_heif_opener", lambda: None)()
    Image.init()
    if PILLOW_NAMES[name] not in Image.OPEN:
        raise SettingsError(f"SACCADE_IMAGE_FORMATS: this Pillow was built without {name}")
    return PILLOW_NAMES[name]
