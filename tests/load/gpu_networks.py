"""The networks of `make bench-gpu`. Promises: full size, weights from a seed, and what each answers is a contract.

Weights are random: speed does not depend on them, accuracy does, and the report says so. Statistics of the batch
normalisations come from generated images, so that activations stay within fp16 as those of trained networks do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

if TYPE_CHECKING:
    from torch import nn

SEED = 0


@dataclass(frozen=True, slots=True)
class BenchNetwork:
    """One network, how it is asked, and what it must reach."""

    name: str
    task: TaskSpec
    classes: int
    preprocess: PreprocessSpec
    build: Callable[[], tuple[nn.Module, str]]  # seeded module in training mode, and where it comes from
    method: str  # of the module, in eval mode
    statistics_size: tuple[int, int, int]  # images, height and width that the batch normalisations see
    batch_sizes: tuple[int, ...]
    objective_ms: float  # p99 of a served request
    picture: tuple[int, int]  # width and height of the JPEG that a client sends
    is_self_check: bool = False  # toy size: for a CPU, never in a report on a GPU

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"class-{index}" for index in range(self.classes))


def _resnet50() -> tuple[nn.Module, str]:
    import torch

    torch.manual_seed(SEED)
    try:
        from torchvision.models import resnet50

        return resnet50(weights=None), "torchvision.models.resnet50"
    except ImportError:
        from saccade.models.networks.resnet import resnet50 as own

        return own(), "saccade.models.networks.resnet.resnet50"


def _yolov10_s() -> tuple[nn.Module, str]:
    import torch

    from saccade.models.networks.yolov10 import yolov10_s

    torch.manual_seed(SEED)
    return yolov10_s(), "saccade.models.networks.yolov10.yolov10_s"


def _digits_detector() -> tuple[nn.Module, str]:
    import torch

    from saccade.models.networks.yolov10 import digits_detector

    torch.manual_seed(SEED)
    return digits_detector(), "saccade.models.networks.yolov10.digits_detector"


def _ddrnet23_slim() -> tuple[nn.Module, str]:
    import torch

    from saccade.models.networks.ddrnet import ddrnet23_slim

    torch.manual_seed(SEED)
    return ddrnet23_slim(), "saccade.models.networks.ddrnet.ddrnet23_slim"


def _tiny() -> tuple[nn.Module, str]:
    import torch

    from tests.pipeline.tiny.tiny_networks import WideClassifier

    torch.manual_seed(SEED)
    network = WideClassifier()
    images = torch.from_numpy(generated_images(32, 32, 32, seed=SEED + 2)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():  # random features barely differ: logits with a spread make the answers tell images apart
        logits = network(images)
        scale = 1.5 / logits.std(0)
        network.classify.bias.copy_((network.classify.bias - logits.mean(0)) * scale)
        network.classify.weight.mul_(scale[:, None])
    return network, "tests.pipeline.tiny.tiny_networks.WideClassifier, last layer rescaled"


NETWORKS = {
    network.name: network
    for network in (
        BenchNetwork(
            name="resnet50-224",
            task=TaskSpec(task=Task.CLASSIFY, top_k=5),
            classes=1000,
            preprocess=PreprocessSpec(width=224, height=224, fit="crop", shortest_edge=256),
            build=_resnet50,
            method="forward",
            statistics_size=(16, 224, 224),
            batch_sizes=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            objective_ms=15.0,
            picture=(500, 375),
        ),
        BenchNetwork(
            name="yolov10s-640",
            task=TaskSpec(task=Task.DETECT, max_detections=100),
            classes=80,
            preprocess=PreprocessSpec(width=640, height=640, fit="letterbox"),
            build=_yolov10_s,
            method="forward",
            statistics_size=(4, 640, 640),
            batch_sizes=(1, 2, 4, 8, 16, 32, 64),
            objective_ms=100.0,
            picture=(640, 480),
        ),
        BenchNetwork(
            name="ddrnet23slim-1024x2048",
            task=TaskSpec(task=Task.SEGMENT, background_id=0),
            classes=19,
            preprocess=PreprocessSpec(width=2048, height=1024, fit="stretch"),
            build=_ddrnet23_slim,
            method="logits_at_stride",
            statistics_size=(2, 512, 1024),
            batch_sizes=(1, 2, 4, 8),
            objective_ms=100.0,
            picture=(2048, 1024),
        ),
        BenchNetwork(
            name="digits-detector",
            task=TaskSpec(task=Task.DETECT, max_detections=100),
            classes=10,
            preprocess=PreprocessSpec(width=256, height=256, fit="letterbox"),
            build=_digits_detector,
            method="forward",
            statistics_size=(8, 256, 256),
            batch_sizes=(1, 8, 32, 64),
            objective_ms=50.0,
            picture=(256, 256),
        ),
        BenchNetwork(
            name="tiny-32",
            task=TaskSpec(task=Task.CLASSIFY, top_k=3),
            classes=10,
            preprocess=PreprocessSpec(width=32, height=32, fit="stretch"),
            build=_tiny,
            method="forward",
            statistics_size=(8, 32, 32),
            batch_sizes=(1, 2, 4),
            objective_ms=1000.0,
            picture=(64, 48),
            is_self_check=True,
        ),
    )
}


def generated_images(count: int, height: int, width: int, seed: int = SEED) -> NDArray[np.uint8]:
    """Soft coloured shapes with a little grain, (count, height, width, 3): no picture, but not noise either."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, height, width, 3), np.uint8)
    for image in images:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        light = rng.uniform(0.1, 1.0, 3)  # per channel: images differ in colour and brightness
        soft = (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * light).astype(np.int16)
        grain = rng.integers(-5, 6, (height, width, 1), np.int16)
        image[...] = np.clip(soft + grain, 0, 255)
    return images


def ready_network(network: BenchNetwork) -> tuple[Any, str]:
    """The module in eval mode with statistics of generated images, and where it comes from."""
    import torch

    module, source = network.build()
    images = torch.from_numpy(generated_images(*network.statistics_size, seed=SEED + 1))
    norms = [each for each in module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over what it has seen
    module.train()
    with torch.no_grad():
        module(images.permute(0, 3, 1, 2).float() / 255)
    return module.eval().requires_grad_(False), source
