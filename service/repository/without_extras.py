"""Takes the extra outputs out of an ONNX file's bytes, for runtimes that would compute or refuse them.

Each is one node `If` with an optional input as its condition (`export/extras/marks.py`), so that nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from saccade.models.contract.extras import ExtraOutput
from saccade.service.repository.onnx_graph import spans

_GRAPH = 7  # of the model
_NODE, _INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12  # of the graph
# The field that holds the name by which a part is known: a node's output, a tensor's name, a value's name.
_NAME_FIELDS = {_NODE: 2, _INITIALIZER: 8, _GRAPH_INPUT: 1, _GRAPH_OUTPUT: 1}
_LENGTH_DELIMITED = 2  # wire type


def without_extras(content: bytes, extras: tuple[ExtraOutput, ...]) -> bytes:
    """The model without these outputs and what only they need. Raises ValueError for bytes that are no ONNX model."""
    if not extras:
        return content
    gone = {name.encode() for extra in extras for name in (extra.output.name, extra.kind.input)}
    return b"".join(_kept(memoryview(content), gone))


def _kept(model: memoryview, gone: set[bytes]) -> Iterator[bytes | memoryview]:
    for number, value, span in spans(model):
        if number != _GRAPH or not isinstance(value, memoryview):
            yield span
            continue
        parts = [
            part
            for kind, inner, part in spans(value)
            if not (kind in _NAME_FIELDS and isinstance(inner, memoryview) and _name(inner, _NAME_FIELDS[kind]) in gone)
        ]
        yield from chain([_head(_GRAPH, sum(map(len, parts)))], parts)


def _name(part: memoryview, field: int) -> bytes:
    return next((bytes(value) for number, value, _ in spans(part) if number == field and value is not None), b"")


def _head(field: int, length: int) -> bytes:
    """Key and length of a message's field."""
    encoded = bytearray([field << 3 | _LENGTH_DELIMITED])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)
