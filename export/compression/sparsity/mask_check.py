"""Reads which layers a compression step claims to be 2:4; `service/repository/two_four.py` checks them in a file."""

from __future__ import annotations

from pathlib import Path

import orjson

from saccade.export.errors import GraphError

SPARSITY_FILE = "sparsity.json"  # written beside a sparse form's deploy module: the layers that it claims


def claimed_layers(directory: Path) -> tuple[str, ...]:
    """Returns the layers that a compression step claims to be 2:4. Raises GraphError for an unreadable file."""
    file = directory / SPARSITY_FILE
    try:
        claimed = orjson.loads(file.read_bytes())["claimed"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise GraphError(f"{file} does not list `claimed` layers ({error}); run compress again") from error
    return tuple(str(name) for name in claimed)
