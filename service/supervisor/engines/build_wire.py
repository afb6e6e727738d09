"""What the supervisor and the build child tell each other. Promises: one JSON line each, unknown lines are ignored.

The child gets one `BuildOrder` on stdin and writes `BuildProgress` lines and exactly one `BuildOutcome` to stdout. One
that ends without an outcome has failed; its exit code and last words say how.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from saccade.models.contract.plans import PlanKey


class BuildStage(StrEnum):
    """What the child does, in this order."""

    READING = "reading"
    BUILDING = "building"
    MEASURING = "measuring"
    STORING = "storing"


class BuildOrder(msgspec.Struct, frozen=True):
    """One plan to build on the device that the child sees as the first."""

    version_dir: str
    manifest_sha256: str
    variant: str
    engines_dir: str
    engines_key_file: str  # empty: records are not authenticated
    key_json: str  # PlanKey; the child refuses when what it finds makes another key
    anew: bool = False  # build even where the store has such a plan: it could not be opened

    @property
    def key(self) -> PlanKey:
        return PlanKey.model_validate_json(self.key_json)


class BuildProgress(msgspec.Struct, frozen=True, tag="progress"):
    stage: BuildStage
    share: float  # of this stage, 0 to 1
    text: str = ""


class BuildOutcome(msgspec.Struct, frozen=True, tag="outcome"):
    """`accepted`: the plan passed its gate on this device. `reason` says why not, in one line."""

    accepted: bool
    denied: bool  # measured and refused by the gate: building again would not help
    reason: str
    plan_dir: str = ""


BuildLine = BuildProgress | BuildOutcome
_decoder = msgspec.json.Decoder(BuildLine)
_order_decoder = msgspec.json.Decoder(BuildOrder)


def order_bytes(order: BuildOrder) -> bytes:
    return msgspec.json.encode(order)


def order_from(raw: bytes) -> BuildOrder:
    """Raises ValueError for anything but an order."""
    return _order_decoder.decode(raw)


def line_bytes(line: BuildLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def try_line(raw: bytes) -> BuildLine | None:
    """None for a line that a library printed in between."""
    try:
        line: BuildLine = _decoder.decode(raw)
    except msgspec.DecodeError:  # also raised for JSON of another shape
        return None
    return line
