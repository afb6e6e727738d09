"""Finds the nodes that stop a target before anything is built, each with its operator, layer and reason.

TensorRT's own parser answers where it is installed. Elsewhere a table of operators does, after the operator support
matrix that TensorRT documents; the table does not know attributes, so it only names operators that never parse.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from saccade.export.graph.onnx_graph import layer_of
from saccade.export.plans.tensorrt_from_onnx import ParserError, find_tensorrt, parser_errors
from saccade.models.contract.manifest import TargetSupport

_NAMED_NODES = 3

_NEVER_PARSED: dict[str, str] = {
    "BitwiseAnd": "no bitwise arithmetic",
    "BitwiseNot": "no bitwise arithmetic",
    "BitwiseOr": "no bitwise arithmetic",
    "BitwiseXor": "no bitwise arithmetic",
    "BitShift": "no bitwise arithmetic",
    "Col2Im": "no operator adds overlapping patches",
    "Compress": "its output's size depends on data",
    "DFT": "no Fourier transforms",
    "Det": "no determinants",
    "DynamicQuantizeLinear": "ranges are not computed at run time",
    "MaxUnpool": "no unpooling by indices",
    "MelWeightMatrix": "no spectrograms",
    "Multinomial": "no random numbers from a distribution",
    "Optional": "no optional values",
    "OptionalGetElement": "no optional values",
    "OptionalHasElement": "no optional values",
    "RoiPool": "only RoiAlign",
    "STFT": "no Fourier transforms",
    "SequenceAt": "no sequences",
    "SequenceConstruct": "no sequences",
    "SequenceInsert": "no sequences",
    "SplitToSequence": "no sequences",
    "StringNormalizer": "no strings",
    "TfIdfVectorizer": "no strings",
    "Unique": "its output's size depends on data",
}


def tensorrt_refusals(model: bytes | Path) -> tuple[ParserError, ...]:
    """Returns the nodes that TensorRT cannot take, in graph order."""
    tensorrt = find_tensorrt()
    if tensorrt is not None:
        return parser_errors(model, tensorrt)
    proto = (
        onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(model, load_external_data=False)
    )
    return tuple(
        ParserError(node.op_type, node.name, layer_of(node.name), _NEVER_PARSED[node.op_type])
        for node in proto.graph.node
        if node.op_type in _NEVER_PARSED
    )


def tensorrt_support(model: bytes | Path) -> TargetSupport:
    """The manifest's statement on TensorRT: supported, or what stops it and that ONNX Runtime serves instead."""
    refusals = tensorrt_refusals(model)
    if not refusals:
        return TargetSupport(target="tensorrt", supported=True, reason="", fallback=None)
    return TargetSupport(target="tensorrt", supported=False, reason=described(refusals), fallback="onnxruntime")


def described(refusals: tuple[ParserError, ...]) -> str:
    """Returns text such as `Col2Im in network.0.attn: no operator …` for the first few refusals."""
    lines = [f"{each.operator} in {each.layer or each.node}: {each.reason}" for each in refusals[:_NAMED_NODES]]
    more = f"; and {len(refusals) - _NAMED_NODES} more" if len(refusals) > _NAMED_NODES else ""
    return "; ".join(lines) + more
