"""The parts of an answer that a request asked for besides the task's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import UNFAMILIAR_ABOVE, ExtraKind, ExtraOutput
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.service.errors import NotFinite
from saccade.service.vision.explanation import explanation_json
from saccade.service.vision.parameters import Parameters


def extras_json(
    outputs: Sequence[NDArray[Any]], place: Geometry, manifest: Manifest, parameters: Parameters
) -> dict[str, Any]:
    """Their fields of the answer; `outputs` are one image's rows of what was asked for, in order. Raises NotFinite."""
    fields: dict[str, Any] = {}
    ensure_finite(outputs, parameters.extras)
    for extra, output in zip(parameters.extras, outputs, strict=True):
        match extra.kind:
            case ExtraKind.EXPLAIN:
                size = (manifest.preprocess.width, manifest.preprocess.height)
                fields |= explanation_json(output, place, size, extra.method, parameters.explain)
            case ExtraKind.TRUST:
                fields |= trust_json(float(output))
    return fields


def trust_json(score: float) -> dict[str, Any]:
    """The field `trust` of an answer."""
    is_familiar = score <= UNFAMILIAR_ABOVE
    return {"trust": {"score": round(score, 4), "threshold": UNFAMILIAR_ABOVE, "familiar": is_familiar}}


def ensure_finite(outputs: Sequence[NDArray[Any]], extras: Sequence[ExtraOutput]) -> None:
    """Raises NotFinite, as for an answer: no client takes such numbers for a measurement."""
    for extra, output in zip(extras, outputs, strict=True):
        if np.count_nonzero(np.isfinite(output)) < output.size:  # twice as fast as .all()
            raise NotFinite(
                f"what the network gives for {extra.kind!r} is not finite for this image ({extra.output.name}); "
                f"ask without it"
            )
