"""Reads the pictures that networks make. numpy and Pillow are imported when the first one is read."""

from __future__ import annotations

import binascii
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from saccade.service.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    PixelArray: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"


def pixels_from(document: Mapping[str, Any]) -> PixelArray:
    """Colours (h, w, 3) or greys (h, w) as uint8, depths (h, w) as float32. Raises KeyError or UnexpectedAnswer."""
    import numpy as np
    from PIL import Image

    try:
        data = binascii.a2b_base64(document["base64"])
        if document["format"] == "raw":
            if document["dtype"] not in ("uint8", "float32"):
                raise UnexpectedAnswer(f"this client does not know pictures of {document['dtype']}; is it older?")
            numbers = np.frombuffer(data, np.dtype(document["dtype"]).newbyteorder("<"))
            return numbers.reshape(document["shape"])
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
    except (ValueError, OSError, SyntaxError) as error:
        raise UnexpectedAnswer(f"the picture is damaged: {error}") from error
    if "scale" not in document:
        return pixels
    depths: NDArray[np.float32] = document["offset"] + document["scale"] * pixels.astype(np.float32)
    return depths.astype(np.float32)
