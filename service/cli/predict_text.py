"""One prediction in one line, for people; programs use the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 4  # numbers of a vector


def summary_of(prediction: Mapping[str, Any]) -> str:
    """The prediction in one line."""
    warning = f" ({prediction['warning']})" if "warning" in prediction else ""
    return "; ".join((_found(prediction), *_besides(prediction))) + warning


def _besides(prediction: Mapping[str, Any]) -> Iterator[str]:
    """What was asked for besides the answer."""
    if "trust" in prediction:
        trust = prediction["trust"]
        yield f"{'familiar' if trust['familiar'] else 'UNFAMILIAR'} ({trust['score']:.2f} of {trust['threshold']:g})"
    if "quality" in prediction:
        quality = prediction["quality"]
        yield f"quality {quality['score']:.2f}" + "".join(f", {reason}" for reason in quality["reasons"])
    if "explanation" in prediction:
        yield f"explained by {prediction['explanation']['method']}, whose map --json has"


def _found(prediction: Mapping[str, Any]) -> str:
    if "classes" in prediction:
        return ", ".join(f"{item['label']} {item['score']:.2f}" for item in prediction["classes"][:3])
    if "detections" in prediction:
        found = [
            f"{item['label']} {item['score']:.2f} {[round(side) for side in item['box']]}"
            for item in prediction["detections"]
        ]
        return "; ".join(found) or "nothing found"
    if "embedding" in prediction:
        vector = prediction["embedding"]
        first = " ".join(f"{number:.4f}" for number in vector.get("values", ())[:_SHOWN])
        return f"{vector['dim']} numbers, {vector['dtype']}" + (f": {first} ..." if first else "")
    for kind in ("image", "depth"):
        if kind in prediction:
            made = prediction[kind]
            return f"{kind} {made['width']}x{made['height']}, {made['format']}"
    return ", ".join(f"{item['label']} {item['area']} px" for item in prediction["segments"]) or "background only"
