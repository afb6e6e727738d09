"""Requests as a recipe would make them; every fact is the source's own unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from saccade.export.network import NetworkRequest
from saccade.export.sources import source_facts
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import Normalisation

_SOURCE: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)


def source_spec(source: str | dict[str, Any]) -> SourceSpec:
    return _SOURCE.validate_python(source)


def network_request(source: str | dict[str, Any], weights: Path | None = None, **changes: Any) -> NetworkRequest:
    """Changes replace fields of the request; `width` and `height` those of its preprocess."""
    spec = source_spec(source)
    facts = source_facts(spec, weights)
    assert facts.task is not None
    assert facts.preprocess is not None
    assert facts.labels is not None
    size = {name: changes.pop(name) for name in ("width", "height") if name in changes}
    fields: dict[str, Any] = {
        "source": spec,
        "weights": weights,
        "task": facts.task,
        "classes": len(facts.labels),
        "preprocess": facts.preprocess.model_copy(update=size),
        "normalisation": facts.normalisation or Normalisation(),
    }
    return NetworkRequest(**fields | changes)
