"""Adds the extra outputs to a variant's finished file; where one cannot be, the file stays without it and says why."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from saccade.export.artifact import Detail
from saccade.export.convert.proof_images import proof_images
from saccade.export.extras.explanation import explanation_branch
from saccade.export.extras.marks import ExtraBranch, NoExtra, add_branch
from saccade.export.extras.trust import trust_branch
from saccade.export.graph.large_files import load_graph, save_graph
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.qualification.serving import open_backend
from saccade.export.steps import StepContext
from saccade.export.variants import TRAITS
from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.service.backends.base import Backend
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.errors import BackendError

_log = logging.getLogger(__name__)
_PROVEN_PICTURES = 3

ExtraMaker = Callable[[onnx.ModelProto, StepContext], ExtraBranch]
"""Says how an output is computed from the tensors of a finished graph, which it leaves alone. Raises NoExtra."""


MAKERS: Mapping[ExtraKind, ExtraMaker] = {ExtraKind.EXPLAIN: explanation_branch, ExtraKind.TRUST: trust_branch}


def add_extras(context: StepContext, makers: Mapping[ExtraKind, ExtraMaker] = MAKERS) -> Detail:
    """Changes `model.onnx` of step `precision`; returns, by kind, the method, or as `no_KIND` why there is none."""
    assert context.variant is not None
    file = context.out / MODEL_FILE
    model = load_graph(file)
    images = proof_images(context.data, context.loaded)[:_PROVEN_PICTURES]
    facts: dict[str, str] = {}
    for kind in sorted(makers, key=lambda kind: kind.bit):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        try:
            if TRAITS[context.variant].needs_gpu:
                raise NoExtra("variants for GPUs compute the answer alone")
            branch = makers[kind](changed, context)
            add_branch(changed, branch)
            _write_proved(context, model, changed, branch.extra, images)
        except NoExtra as reason:
            facts[f"no_{kind}"] = str(reason)
        except Exception as error:  # graphs are anybody's: a surprise in one must not cost the variant
            _log.exception("no_extra %s %s", context.variant, kind)
            facts[f"no_{kind}"] = f"looking for it failed unexpectedly ({type(error).__name__})"
        else:
            model, facts[str(kind)] = changed, branch.extra.method
    return facts


def _write_proved(
    context: StepContext,
    before: onnx.ModelProto,
    changed: onnx.ModelProto,
    extra: ExtraOutput,
    images: NDArray[np.uint8],
) -> None:
    """Writes the changed file, or the former one again. Raises NoExtra when the answers are not the same bits."""
    file = context.out / MODEL_FILE
    expected = _answers(_opened(context), images)
    save_graph(changed, file)
    try:
        onnx.checker.check_model(os.fspath(file))  # by its path, because weights may lie beside it
        _ensure_proved(_opened(context), extra, images, expected)
    except (NoExtra, BackendError, onnx.checker.ValidationError) as error:
        save_graph(before, file)
        raise NoExtra(f"the file with this output could not be proved: {error}") from error


def _opened(context: StepContext) -> OnnxRuntimeBackend:
    """The file in ONNX Runtime, which computes extra outputs, also where OpenVINO will serve it."""
    assert context.variant is not None
    traits = TRAITS[context.variant]
    backend = open_backend(context.out / MODEL_FILE, context.recipe, TRAITS["fp32"] if traits.is_openvino else traits)
    assert isinstance(backend, OnnxRuntimeBackend)
    return backend


def _answers(backend: Backend, images: NDArray[np.uint8]) -> list[Sequence[NDArray[Any]]]:
    return [backend.infer(images[row : row + 1]) for row in range(len(images))]


def _ensure_proved(
    backend: OnnxRuntimeBackend,
    extra: ExtraOutput,
    images: NDArray[np.uint8],
    expected: Sequence[Sequence[NDArray[Any]]],
) -> None:
    """Raises NoExtra unless answers are as before, asked or not, and the output is what it says, finite and repeats."""
    for row, answer in enumerate(expected):
        image, count = images[row : row + 1], len(answer)
        asked, again = (backend.infer_asked(image, extra.kind.bit) for _ in range(2))
        if not _same(answer, backend.infer(image)) or not _same(answer, asked[:count]):
            raise NoExtra("answers changed with it, so the runtime computes the network in another way")
        found = asked[-1]
        if found.shape[1:] != extra.output.shape or found.dtype != np.dtype(extra.output.dtype):
            raise NoExtra(f"it is {found.dtype}{found.shape[1:]}, not {extra.output.dtype}{extra.output.shape}")
        if not np.isfinite(found).all() or not _same(asked, again):
            raise NoExtra("it is not finite, or differs from run to run")


def _same(left: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(left, right, strict=True))
