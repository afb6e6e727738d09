"""The simplest sparse form of a toy network: 2:4 by magnitude, nothing recovered. Promises: what `compress` writes."""

from __future__ import annotations

import shutil

import orjson
import torch

from saccade.export.artifact import Detail
from saccade.export.convert.wrap import DEPLOY_FILE
from saccade.export.steps import StepContext

CLAIMED = ("network.body.2", "network.body.4")


def compress_by_magnitude(context: StepContext) -> Detail:
    """Stands in for the step's own way, which learns for minutes what it removed."""
    source = context.inputs["wrap"].directory
    for path in source.iterdir():
        if path.name not in (DEPLOY_FILE, "step.json"):
            shutil.copyfile(path, context.out / path.name)
    program = torch.export.load(source / DEPLOY_FILE)
    for name, weight in program.state_dict.items():
        if name.removesuffix(".weight") in CLAIMED:
            weight.data.copy_(two_four(weight.data))
    torch.export.save(program, context.out / DEPLOY_FILE)
    (context.out / "sparsity.json").write_bytes(orjson.dumps({"claimed": CLAIMED}))
    return dict(context.inputs["wrap"].detail)


def two_four(weight: torch.Tensor) -> torch.Tensor:
    """(K, C, R, S) with the two smaller of every four input channels zero."""
    groups = weight.movedim(1, -1).unflatten(-1, (-1, 4))
    kept = groups.abs().argsort(-1).argsort(-1) >= 2
    return (groups * kept).flatten(-2).movedim(-1, 1)
