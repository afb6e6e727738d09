"""Depth and enlargement of transformers through the whole export: the file's answers are the library's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
import yaml
from torch import nn

from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.models.contract.manifest import read_manifest
from tests.pipeline.conftest import QUICK
from tests.unit.export.sources.test_pictures_out import NETWORKS

CLASSES = {
    "dpt": "DPTForDepthEstimation",
    "depth_anything": "DepthAnythingForDepthEstimation",
    "swin2sr": "Swin2SRForImageSuperResolution",
}
LIMIT = 1e-4
_QUIET = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)


def saved(name: str, folder: Path) -> Any:
    """A network of random weights whose depths spread around 4, as its last layer would otherwise give zeros."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **NETWORKS[name][0])
    network = getattr(transformers, CLASSES[name])._from_config(config).eval()
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    if last.out_channels == 1:
        seen: list[torch.Tensor] = []
        hook = last.register_forward_hook(lambda layer, inputs, output: seen.append(output))
        with torch.no_grad():
            network(pixel_values=torch.randn(2, 3, *NETWORKS[name][1][1:]))
            hook.remove()
            factor = 1 / seen[0].std()
            last.weight.mul_(factor)
            last.bias.copy_(last.bias * factor + 4 - seen[0].mean() * factor)
    network.save_pretrained(folder)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_answers_as_the_library(tmp_path: Path, name: str) -> None:
    network = saved(name, tmp_path / "weights")
    side = 64 if name != "depth_anything" else 56
    fit = "tile" if name == "swin2sr" else "stretch"
    document = {
        **QUICK,
        "model": "pictures",
        "source": "transformers",
        "weights": "weights",
        "task": {"task": "image"},
        "preprocess": {"width": side, "height": side, "fit": fit},
        "variants": ["fp32"],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    settings = RunSettings(tmp_path / "work", tmp_path / "repository")

    results = run_pipeline(load_recipe(tmp_path / "recipe.yaml"), settings, DataStore(), _QUIET)

    assert results[-1].status == "done", results[-1].detail
    version = tmp_path / "repository" / "pictures" / "1"
    manifest, _ = read_manifest(version)
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    session = onnxruntime.InferenceSession(version / "fp32.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run([manifest.answer[0].name], {"images": images})
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in manifest.normalisation.model_dump().values())
    with torch.no_grad():
        outputs = network(pixel_values=(torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    if name == "swin2sr":
        expected = outputs.reconstruction.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    else:
        expected = outputs.predicted_depth.numpy()
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    print(f"{name}: relative L2 {error:.1e}, spread {float(expected.std()):.2g}")
    assert float(expected.std()) > 1e-2
    assert error <= LIMIT
