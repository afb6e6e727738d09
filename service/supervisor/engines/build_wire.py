"""Defines the messages between the supervisor and the build child: one JSON line each; unknown lines are ignored.

The child gets one `BuildOrder` on stdin and writes `BuildProgress` lines and exactly one `BuildOutcome` to stdout. A
child that ends without an outcome has failed; its exit code and the last line of its stderr say why.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from saccade.models.contract.plans import PlanKey


class BuildStage(StrEnum):
    """The stages of a build, in their order."""

    READING = "reading"
    BUILDING = "building"
    MEASURING = "measuring"
    STORING = "storing"


class BuildOrder(msgspec.Struct, frozen=True):
    """The order to build one plan, on the first device that the child sees."""

    version_dir: str
    manifest_sha256: str
    variant: str
    engines_dir: str
    engines_key_file: str  # empty when records are not authenticated
    key_json: str  # a PlanKey; the child refuses when its machine and files give another key
    anew: bool = False  # build even where the store has such a plan, because it could not be opened

    @property
    def key(self) -> PlanKey:
        return PlanKey.model_validate_json(self.key_json)


class BuildProgress(msgspec.Struct, frozen=True, tag="progress"):
    stage: BuildStage
    share: float  # part of this stage that is done, 0 to 1
    text: str = ""


class BuildOutcome(msgspec.Struct, frozen=True, tag="outcome"):
    """The result of a build: `accepted` when the plan passed its gate on this device, else a `reason` in one line."""

    accepted: bool
    denied: bool  # the gate measured the plan and refused it, so building it again would not help
    reason: str
    plan_dir: str = ""


BuildLine = BuildProgress | BuildOutcome
_decoder = msgspec.json.Decoder(BuildLine)
_order_decoder = msgspec.json.Decoder(BuildOrder)


def order_bytes(order: BuildOrder) -> bytes:
    return msgspec.json.encode(order)


def order_from(raw: bytes) -> BuildOrder:
    """Decodes an order. Raises ValueError for anything else."""
    return _order_decoder.decode(raw)


def line_bytes(line: BuildLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def try_line(raw: bytes) -> BuildLine | None:
    """Decodes a line of the child; returns None for a line that a library printed."""
    try:
        line: BuildLine = _decoder.decode(raw)
    except msgspec.DecodeError:  # also raised for other JSON
        return None
    return line
