"""Networks whose answer is a picture, through the whole export. Promises: judged by targets, tiles as one picture."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.export.reports.export_report import REPORT_JSON, read_report
from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.models.contract.preprocessing import tile_into
from saccade.service.cli.predict import predict
from saccade.service.repository.report_agreement import ensure_report_agrees
from saccade.service.vision.tiles import Mosaic, tile_grid, tiles_of
from tests.matrix.networks.fast_style import fast_style
from tests.pipeline.conftest import QUICK, QUICK_GATE

SIDE = 48
FACTORY = """
import torch
from torch import nn

class Restorer(nn.Module):
    '''Two blurs of 3x3 pixels, and each pixel repeated on both sides.'''

    def __init__(self, scale):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.second = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.scale = scale
        nn.init.constant_(self.first.weight, 1 / 9)
        nn.init.constant_(self.second.weight, 1 / 9)
        if scale > 1:
            for layer in (self.first, self.second):
                nn.init.dirac_(layer.weight, groups=3)

    def forward(self, images):
        found = self.second(self.first(images))
        if self.scale == 1:
            return found
        return nn.functional.pixel_shuffle(found.repeat_interleave(self.scale**2, dim=1), self.scale)

class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 10.0)

    def forward(self, images):
        return self.layer(images) + 1.0
"""
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)


def waves(width: int, height: int, seed: int) -> np.ndarray:
    """A smooth picture, which noise makes worse and a blur hardly changes."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    planes = [
        128 + 90 * np.sin(rng.uniform(0.3, 1) * x + rng.uniform(0.3, 1) * y + rng.uniform(0, 6)) for _ in range(3)
    ]
    return np.stack(planes, -1).round().astype(np.uint8)


def clean_pictures(root: Path) -> None:
    for number, (split, count) in enumerate((("calibration", 34), ("tuning", 8), ("test", 54))):
        (root / split).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(waves(56, 50, 1000 * number + index)).save(root / split / f"{index}.png")


def depth_pairs(root: Path) -> None:
    for number, (split, count) in enumerate((("calibration", 34), ("tuning", 8), ("test", 54))):
        for folder in ("input", "target"):
            (root / split / folder).mkdir(parents=True)
        for index in range(count):
            pixels = waves(60, 48, 1000 * number + index)
            depth = (1000 + pixels.astype(np.uint32).sum(2) * 10).astype(np.uint16)
            Image.fromarray(pixels).save(root / split / "input" / f"{index}.png")
            Image.fromarray(depth).save(root / split / "target" / f"{index}.png")


def exported(root: Path, **document: object) -> tuple[Path, Manifest]:
    (root / "tiny_restorers.py").write_text(FACTORY)
    whole = {
        "model": "restorer",
        "data": {"path": "pictures"},
        "variants": ["fp32"],
        **{name: QUICK[name] for name in ("allowed_batch_sizes", "calibration", "qualify")},
        "gate": {**QUICK_GATE, "mode": "metric"},
        **document,
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(whole))
    results = run_pipeline(
        load_recipe(root / "recipe.yaml"), RunSettings(root / "work", root / "repository"), DataStore(), _QUIET
    )
    assert results[-1].status == "done", results[-1].detail
    version = root / "repository" / "restorer" / "1"
    return version, read_manifest(version)[0]


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("denoiser")
    clean_pictures(root / "pictures")
    return exported(
        root,
        source={"kind": "module", "factory": "tiny_restorers.py:Restorer", "arguments": {"scale": 1}},
        task={"task": "image", "picture": "rgb"},
        preprocess={"width": SIDE, "height": SIDE, "fit": "tile"},
        data={"path": "pictures", "noise": 40},
        variants=["fp32", "int8-cpu"],
    )


def test_manifest_has_the_measured_margin_and_the_similarity(denoiser: tuple[Path, Manifest]) -> None:
    version, manifest = denoiser

    assert (manifest.preprocess.fit, manifest.preprocess.margin) == ("tile", 2)
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("image", (SIDE, SIDE, 3))]
    assert (manifest.reference_metric.name, manifest.reference_metric.images) == ("ssim", 54)
    assert manifest.reference_metric.value > 0.5
    assert {each.name for each in manifest.variants} == {"fp32", "int8-cpu"}
    ensure_report_agrees(version, manifest)


def test_report_has_decibels_and_what_a_copy_of_the_input_would_reach(denoiser: tuple[Path, Manifest]) -> None:
    version, _ = denoiser
    report = read_report(version / REPORT_JSON)
    exact, int8 = (each.qualify for each in report.variants)

    assert max(each.relative_l2 or 0.0 for each in exact.parity) <= 1e-4
    assert exact.pictures is not None
    assert exact.pictures.psnr is not None
    assert 20.0 < exact.pictures.psnr < 40.0  # noise of 40 levels alone: 16 dB
    assert exact.reference is not None
    assert exact.reference.faults == ()
    assert exact.reference.guess == "giving each picture back as it was sent"
    assert exact.reference.chance < 0.5 < exact.metric.value
    assert int8.agreement is not None
    assert int8.agreement["levels"] > 0.8
    assert "PSNR" in (version / "report.md").read_text()
    if int8.disagreements is not None:
        assert all((version / f"int8-cpu-{each.file}").exists() for each in int8.disagreements.examples)


def test_answers_that_hardly_shrink_are_kept_as_they_are(denoiser: tuple[Path, Manifest]) -> None:
    version, _ = denoiser
    (answers,) = version.parents[2].glob("work/restorer/reference-*/answers.npz")

    with zipfile.ZipFile(answers) as kept:
        assert {each.compress_type for each in kept.infolist()} == {zipfile.ZIP_STORED}


def test_tiles_of_the_published_file_equal_the_whole_picture(denoiser: tuple[Path, Manifest]) -> None:
    version, manifest = denoiser
    pixels = np.random.default_rng(3).integers(0, 256, (130, 171, 3), np.uint8)
    session = onnxruntime.InferenceSession(version / "fp32.onnx", providers=["CPUExecutionProvider"])
    grid = tile_grid(171, 130, manifest.preprocess)
    mosaic = Mosaic(171, 130, grid, 1)
    for tile in tiles_of(pixels, grid):
        images = np.empty((1, SIDE, SIDE, 3), np.uint8)
        tile_into(pixels, manifest.preprocess, tile.place, images[0])
        mosaic.add(session.run(["image"], {"images": images})[0][0], tile.place)

    blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.constant_(blur.weight, 1 / 9)
    with torch.no_grad():
        whole = blur(blur(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255))[0].permute(1, 2, 0).numpy()
    assert grid.count > 9
    assert (np.abs(mosaic.joined() - whole) <= 1 / 255).mean() >= 0.999


def test_clean_pictures_are_reduced_for_a_network_that_enlarges(tmp_path: Path) -> None:
    clean_pictures(tmp_path / "pictures")

    _, manifest = exported(
        tmp_path,
        source={"kind": "module", "factory": "tiny_restorers.py:Restorer", "arguments": {"scale": 2}},
        task={"task": "image", "picture": "rgb", "scale": 2},
        preprocess={"width": 24, "height": 24, "fit": "tile"},
        gate={**QUICK_GATE, "mode": "metric", "min_skill": 0.0} | {"mode": "parity"},
    )

    assert manifest.outputs[0].shape == (48, 48, 3)
    assert (manifest.preprocess.margin, manifest.task.scale) == (0, 2)


def test_depth_is_judged_up_to_scale_and_offset(tmp_path: Path) -> None:
    depth_pairs(tmp_path / "pictures")

    version, manifest = exported(
        tmp_path,
        source={"kind": "module", "factory": "tiny_restorers.py:Brightness"},
        task={"task": "image", "picture": "depth"},
        preprocess={"width": SIDE, "height": SIDE, "fit": "stretch"},
    )

    assert manifest.reference_metric.name == "depth_accuracy"
    assert manifest.reference_metric.value > 0.98
    assert "absolute relative error" in (version / "report.md").read_text()


def test_a_style_network_comes_through_to_the_answer(tmp_path: Path) -> None:
    """Johnson's layers with random weights, which no style belongs to: what is tested is the way through."""
    clean_pictures(tmp_path / "pictures")
    torch.manual_seed(0)
    network = fast_style().eval()
    save_file(network.state_dict(), tmp_path / "style.safetensors")
    _, manifest = exported(
        tmp_path,
        source={"kind": "module", "factory": "tests.matrix.networks.fast_style:fast_style"},
        weights="style.safetensors",
        task={"task": "image", "picture": "rgb", "values": [0, 255]},
        preprocess={"width": SIDE, "height": SIDE, "fit": "stretch"},
        data={"path": "pictures", "noise": 10},
        gate=QUICK_GATE,
        variants=["fp32", "int8-cpu"],
    )
    pixels = waves(SIDE, SIDE, 7)
    Image.fromarray(pixels).save(tmp_path / "same.png")
    Image.fromarray(waves(100, 80, 8)).save(tmp_path / "wide.png")

    arguments = [str(tmp_path / "repository"), "--parameter", "variant=fp32", "--json"]
    files = [str(tmp_path / f"{name}.png") for name in ("same", "wide")]
    ended = CliRunner().invoke(predict, [*files, "--repository", *arguments])

    assert ended.exit_code == 0, ended.output
    encoded = [json.loads(line)["prediction"]["image"]["base64"] for line in ended.stdout.splitlines()]
    same, wide = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in encoded)
    with torch.no_grad():
        styled = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).numpy()
    assert np.ptp(styled) > 50
    assert np.abs(same - styled).max() <= 1.0
    assert wide.shape == (80, 100, 3)
    assert {each.name for each in manifest.variants} == {"fp32", "int8-cpu"}


def test_a_network_that_sees_the_whole_picture_is_refused_in_tiles(tmp_path: Path) -> None:
    clean_pictures(tmp_path / "pictures")
    with pytest.raises(AssertionError, match=r"tiles of 48x48 would show seams.*fit: stretch"):
        exported(
            tmp_path,
            source={"kind": "module", "factory": "whole.py:Whole"},
            task={"task": "image", "picture": "rgb"},
            preprocess={"width": SIDE, "height": SIDE, "fit": "tile"},
            data={"path": "pictures", "noise": 40},
            **_written(tmp_path),
        )


def test_a_denoiser_whose_answer_is_moved_by_a_pixel_has_a_fault(tmp_path: Path) -> None:
    clean_pictures(tmp_path / "pictures")
    (tmp_path / "moving.py").write_text(
        "import torch\nfrom torch import nn\nfrom tiny_restorers import Restorer\n\n"
        "class Moving(Restorer):\n    def forward(self, images):\n"
        "        return nn.functional.pad(super().forward(images), (1, 0, 1, 0))[..., :-1, :-1]\n"
    )
    version, _ = exported(
        tmp_path,
        source={"kind": "module", "factory": "moving.py:Moving", "arguments": {"scale": 1}},
        task={"task": "image", "picture": "rgb"},
        preprocess={"width": SIDE, "height": SIDE, "fit": "tile"},
        data={"path": "pictures", "noise": 40},
    )

    report = read_report(version / REPORT_JSON)
    assert report.variants[0].qualify.reference is not None
    (fault,) = report.variants[0].qualify.reference.faults  # which the quick gate excuses, as that of random weights
    assert "lie beside their targets: moved up and left by a pixel, 54 of 54 fit better" in fault


def _written(root: Path) -> dict[str, object]:
    (root / "whole.py").write_text(
        "from torch import nn\n\nclass Whole(nn.Module):\n    def forward(self, images):\n"
        "        return images - images.mean(dim=(2, 3), keepdim=True) + 0.5\n"
    )
    return {}


def test_the_same_file_always_has_the_same_noise(tmp_path: Path) -> None:
    from saccade.export.data.picture_pairs import made_pair
    from saccade.models.contract.specs import Task, TaskSpec

    buffer = io.BytesIO()
    Image.fromarray(waves(40, 40, 0)).save(buffer, "PNG")
    spec = TaskSpec(task=Task.IMAGE, picture="rgb")

    first, second = (made_pair(buffer.getvalue(), spec, 25.0) for _ in range(2))

    assert first == second
    assert first.encoded != first.target
