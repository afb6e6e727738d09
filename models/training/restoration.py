"""Trains the denoiser and the network that enlarges: writes their checkpoints and their PSNR on unseen scenes.

Training pictures are photographs that come with scikit-image and scikit-learn, and scenes of digits. Tests see scenes
alone, whose digits and backgrounds were never trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional

from saccade.models.digits.digit_scenes import SCENE_SIZE, Split, decode_rgb, scene_samples
from saccade.models.metrics.picture_quality import psnr
from saccade.models.metrics.worse_pictures import worse_picture
from saccade.models.networks.layers import as_float
from saccade.models.networks.restoration import denoiser, super_resolution
from saccade.models.training.command import autocast, parse_options
from saccade.models.training.loop import TrainingSchedule
from saccade.models.training.runs import TEST_SEED, TRAIN_SEED, TUNING_SEED, TrainingRun, execute

NOISE = 25.0  # levels, of the tests; training varies it by half
_TRAIN_SCENES, _TUNING_SCENES, _TEST_SCENES = 600, 40, 200
_PATCH = 64  # pixels of the network's input
_PATCHES = 16_384  # per epoch
_PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "color.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class RestorationTrainee:
    """Mean absolute error over patches that are cut out, turned, and made worse by chance."""

    training: Sequence[UInt8Array]
    tuning: Sequence[bytes]
    scale: int
    noise: float

    @property
    def examples(self) -> int:
        return _PATCHES

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        clean = torch.stack([self._patch(rng) for _ in indices])
        targets = as_float(clean).contiguous(memory_format=torch.channels_last)
        with autocast():
            found = network(self._worse(clean, targets, rng).contiguous(memory_format=torch.channels_last))
        return functional.l1_loss(found.float(), targets)

    def _patch(self, rng: Generator) -> Tensor:
        """(h, w, 3) of a picture, turned and mirrored by chance."""
        side = _PATCH * self.scale
        picture = self.training[int(torch.randint(len(self.training), (1,), generator=rng))]
        top, left = (int(torch.randint(length - side + 1, (1,), generator=rng)) for length in picture.shape[:2])
        turn = int(torch.randint(8, (1,), generator=rng))
        patch = np.rot90(picture[top : top + side, left : left + side], turn % 4)
        return torch.from_numpy(np.ascontiguousarray(patch[:, ::-1] if turn >= 4 else patch))

    def _worse(self, clean: Tensor, targets: Tensor, rng: Generator) -> Tensor:
        if self.scale > 1:
            small = [worse_picture(each.numpy(), self.scale, 0.0, b"") for each in clean]
            return as_float(torch.from_numpy(np.stack(small)))
        strengths = self.noise / 255.0 * (0.5 + torch.rand(len(clean), 1, 1, 1, generator=rng))
        noisy = targets + strengths * torch.randn(targets.shape, generator=rng)
        return (noisy * 255.0).round().clamp(0.0, 255.0) / 255.0

    def tuning_metric(self, network: nn.Module) -> float:
        return restored_psnr(network, self.tuning, self.scale, self.noise)


def restored_psnr(network: nn.Module, scenes: Sequence[bytes], scale: int, noise: float) -> float:
    """Mean PSNR in dB of what a network makes of scenes that were made worse."""
    values = []
    for jpeg in scenes:
        clean = decode_rgb(jpeg)
        images = as_float(torch.from_numpy(np.array(worse_picture(clean, scale, noise, jpeg))[np.newaxis]))
        with torch.inference_mode():
            found = network.eval()(images)[0].clamp(0.0, 1.0).permute(1, 2, 0).numpy()
        values.append(psnr(found, clean / np.float32(255.0)))
    return float(np.mean(values))


def _scenes(split: Split, seed: int, count: int) -> list[bytes]:
    return [sample.jpeg for sample in scene_samples(split, seed, count)]


def _photographs() -> list[UInt8Array]:
    import skimage.data  # the library brings its pictures along
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.data.__file__).parent
    files = [np.asarray(Image.open(folder / name).convert("RGB")) for name in _PHOTOGRAPHS]
    return [*files, *load_sample_images().images]


def _trainee(scale: int, noise: float) -> RestorationTrainee:
    photographs = _photographs()
    scenes = [decode_rgb(jpeg) for jpeg in _scenes(Split.TRAIN, TRAIN_SEED, _TRAIN_SCENES)]
    repeated = photographs * (len(scenes) // len(photographs))  # half of all patches
    return RestorationTrainee([*scenes, *repeated], _scenes(Split.TUNING, TUNING_SEED, _TUNING_SCENES), scale, noise)


def test_psnr(network: nn.Module, scale: int, noise: float) -> float:
    """PSNR on the test split's fixed scenes."""
    return restored_psnr(network, _scenes(Split.TEST, TEST_SEED, _TEST_SCENES), scale, noise)


def sent_psnr(scale: int, noise: float) -> float:
    """PSNR of the same scenes as they are sent, enlarged by Pillow's bicubic filter: what a network has to exceed."""
    values = []
    for jpeg in _scenes(Split.TEST, TEST_SEED, _TEST_SCENES):
        clean = decode_rgb(jpeg)
        sent = Image.fromarray(worse_picture(clean, scale, noise, jpeg)).resize(
            clean.shape[1::-1], Image.Resampling.BICUBIC
        )
        values.append(psnr(np.asarray(sent, np.float32) / 255.0, clean / np.float32(255.0)))
    return float(np.mean(values))


_SCHEDULE = TrainingSchedule(
    steps=600,
    batch_size=8,
    peak_lr=2e-3,
    warmup_steps=100,
    weight_decay=0.0,
    average_decay=0.99,
    evaluate_every=200,
    seed=5,
)
DENOISER = TrainingRun(
    name="scenes-denoiser",
    metric="psnr",
    command="python -m saccade.models.training.restoration",
    network=denoiser,
    trainee=partial(_trainee, 1, NOISE),
    test_metric=partial(test_psnr, scale=1, noise=NOISE),
    schedule=_SCHEDULE,
    image_size=SCENE_SIZE,
    train_images=_TRAIN_SCENES + len(_PHOTOGRAPHS) + 2,
    tuning_images=_TUNING_SCENES,
    test_images=_TEST_SCENES,
)
SUPER_RESOLUTION = TrainingRun(
    name="scenes-super-resolution",
    metric="psnr",
    command="python -m saccade.models.training.restoration",
    network=super_resolution,
    trainee=partial(_trainee, 2, 0.0),
    test_metric=partial(test_psnr, scale=2, noise=0.0),
    schedule=_SCHEDULE,
    image_size=SCENE_SIZE // 2,
    train_images=_TRAIN_SCENES + len(_PHOTOGRAPHS) + 2,
    tuning_images=_TUNING_SCENES,
    test_images=_TEST_SCENES,
)
RUNS = (DENOISER, SUPER_RESOLUTION)

if __name__ == "__main__":
    options = parse_options(__doc__)
    for each, worse in zip(RUNS, ((1, NOISE), (2, 0.0)), strict=True):
        execute(each, options)
        print(f"{each.name}: the pictures as they are sent have {sent_psnr(*worse):.1f} dB", flush=True)
