"""Reads the vectors of answers. numpy is imported when the first one is read."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from saccade.service.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = "NDArray[np.floating[Any]]"


def vector_from(document: Mapping[str, Any]) -> FloatArray:
    """The vector (dim,) in the type that the answer names. Raises KeyError or UnexpectedAnswer."""
    import numpy as np

    name, dim = document["dtype"], document["dim"]
    if name not in ("float32", "float16"):
        raise UnexpectedAnswer(f"this client does not know vectors of {name}; is it older?")
    dtype = np.dtype(name).newbyteorder("<")
    if document.get("base64") is None:
        vector = np.array(document["values"], dtype)
    else:
        try:
            vector = np.frombuffer(binascii.a2b_base64(document["base64"]), dtype)
        except ValueError as error:
            raise UnexpectedAnswer(f"the vector is damaged: {error}") from error
    if vector.shape != (dim,):
        raise UnexpectedAnswer(f"the vector has {vector.shape}, and the answer says {dim} numbers")
    return vector
