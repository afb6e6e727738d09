"""`python -m tests.matrix.draw`: draws networks for the matrix at random, from a seed that was named beforehand.

The pool of a library is what it lists for pictures, less what the matrix has already, less networks of more than 60
million parameters or for pictures above 384 pixels (the machine has two cores), less those that cannot be built here
by their names alone (a library that is not installed, or a configuration that has no default).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import torch
from torch import nn

from saccade.models.contract.specs import Task
from tests.matrix.entries import DRAWN, ENTRIES
from tests.matrix.weights import transformers_class

SEED = 14
COUNTS = {"torchvision": 5, "timm": 8, "transformers": 7}
_MOST_PARAMETERS = 60_000_000
_LARGEST_SIDE = 384
_OTHER_TASKS = ("quantized", "3d", "raft", "mvit", "s3d", "r2plus1d", "mc3", "keypoint", "maskrcnn")


def main() -> None:
    rng = random.Random(SEED)
    older = {entry.source for entry in ENTRIES if entry not in DRAWN}
    for library, (names, build) in {
        "torchvision": (_torchvision_names(), _torchvision),
        "timm": (_timm_names(), _timm),
        "transformers": (_transformers_names(), _transformers),
    }.items():
        pool = sorted(name for name in names if f"{library}/{name.partition(' ')[0]}" not in older)
        rng.shuffle(pool)
        fitting = (name for name in pool if _fits(name, build))
        print(library, [name for name, _ in zip(fitting, range(COUNTS[library]), strict=False)])


def _fits(name: str, build: Callable[[str], nn.Module]) -> bool:
    for device in ("meta", "cpu"):  # some networks fill their tables while they are built, and meta has no numbers
        try:
            with torch.device(device):
                return sum(parameter.numel() for parameter in build(name).parameters()) <= _MOST_PARAMETERS
        except Exception as error:  # libraries raise what they like
            print(f"{name} cannot be built on {device}: {str(error).strip()[:100]}")
    return False


def _torchvision_names() -> Iterable[str]:
    from torchvision import models

    return (name for name in models.list_models() if not any(word in name for word in _OTHER_TASKS))


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    is_dense = any(word in name for word in ("rcnn", "retinanet", "fcos", "ssd", "fcn", "deeplab", "lraspp"))
    return models.get_model(name, weights=None, **({"weights_backbone": None} if is_dense else {}))


def _timm_names() -> Iterable[str]:
    import timm

    for name in timm.list_models():
        card = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if card is None or card.input_size[-1] <= _LARGEST_SIDE:
            yield str(name)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


def _transformers_names() -> Iterable[str]:
    from transformers.models.auto import modeling_auto as auto

    mappings = (
        (Task.CLASSIFY, auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
        (Task.DETECT, auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES),
        (Task.SEGMENT, auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES),
        (Task.SEGMENT, auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES),
    )
    return {f"{kind} {task.value}" for task, mapping in mappings for kind in mapping}


def _transformers(name: str) -> nn.Module:
    import transformers

    kind, task = name.split()
    config = transformers.AutoConfig.for_model(kind)
    network: nn.Module = getattr(transformers, transformers_class(kind, Task(task)))._from_config(config)
    return network


if __name__ == "__main__":
    main()
