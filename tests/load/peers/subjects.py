"""The networks that all servers serve. Promises: published by the exporter; every server opens the very same ONNX file.

.saccade/peers/subjects/<name>/repository    what saccade serves
.saccade/peers/subjects/<name>/subject.json  the same version for peers: file, preprocessing, labels
.saccade/peers/pictures                      the JPEG bodies that clients send
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.backends.registry import absent_kinds
from saccade.service.repository.open import list_versions
from saccade.service.repository.variants import runnable_variants
from saccade.service.repository.verify import verify_version

ROOT = Path(__file__).resolve().parents[3]
RECIPES = Path(__file__).with_name("recipes")
PICTURES = 32
_EXPORT_TIMEOUT_S = 1800.0
_SPLITS = {"calibration": 16, "tuning": 8, "test": 16}
_CLASS_FOLDERS = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A network and the variant whose file peers open; `queue` requests take about 120 ms on two cores."""

    name: str
    variant: str
    queue: int


SUBJECTS = (Subject("resnet50", "int8-cpu", 16), Subject("mobilenetv3-small", "fp32", 48))


@dataclass(frozen=True, slots=True)
class Published:
    """A subject as its files lie on disk."""

    subject: Subject
    repository: Path
    version_dir: Path
    manifest: Manifest
    facts_file: Path  # of peers
    onnx_sha256: str


def published(subject: Subject, work: Path) -> Published | None:
    """What `publish` made earlier of this recipe; None while there is nothing."""
    home = work / "subjects" / subject.name
    recipe = home / "recipe.yaml"
    if not recipe.exists() or recipe.read_bytes() != (RECIPES / f"{subject.name}.yaml").read_bytes():
        return None
    versions = list_versions(home / "repository") if (home / "repository").is_dir() else []
    if not versions or not (home / "subject.json").exists():
        return None
    version_dir = versions[-1].path.absolute()
    manifest = verify_version(version_dir).manifest
    file = version_dir / _file_of(manifest, subject.variant)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Published(subject, home / "repository", version_dir, manifest, (home / "subject.json").absolute(), digest)


def same_network(published: Published) -> tuple[Variant, ...]:
    """The variants that compute the peers' file in its precision here, each in another runtime."""
    runnable = runnable_variants(published.manifest, "cpu", absent_kinds("auto"))
    theirs = next(each for each in published.manifest.variants if each.name == published.subject.variant)
    return tuple(each for each in runnable if (each.file, each.precision) == (theirs.file, theirs.precision))


def publish(subject: Subject, work: Path) -> Published:
    """Makes weights and pictures, and exports; a few minutes. Raises CalledProcessError and TimeoutExpired."""
    home = work / "subjects" / subject.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    recipe = home / "recipe.yaml"
    shutil.copyfile(RECIPES / f"{subject.name}.yaml", recipe)
    write_weights(subject, home / "network.safetensors")
    write_pictures(home / "pictures", _labels(recipe)[:_CLASS_FOLDERS])
    command = ["run", str(recipe), "--repository", str(home / "repository"), "--work", str(home / "export")]
    subprocess.run([sys.executable, "-m", "saccade.export", *command], cwd=ROOT, check=True, timeout=_EXPORT_TIMEOUT_S)
    version_dir = list_versions(home / "repository")[-1].path
    facts = facts_of(verify_version(version_dir).manifest, version_dir.absolute(), subject.variant)
    (home / "subject.json").write_text(json.dumps(facts, indent=2), "utf-8")
    shutil.rmtree(home / "export")  # hundreds of megabytes that nobody reads again
    made = published(subject, work)
    assert made is not None
    return made


def facts_of(manifest: Manifest, version_dir: Path, variant: str) -> dict[str, Any]:
    """What a peer needs to know of a version, as JSON: no peer has this project's packages by itself."""
    return {
        "model": manifest.model,
        "onnx": str(version_dir / _file_of(manifest, variant)),
        "input": manifest.input.name,
        "preprocess": manifest.preprocess.model_dump(mode="json"),
        "labels": list(manifest.labels),
        "top_k": manifest.task.top_k,
    }


def _file_of(manifest: Manifest, variant: str) -> str:
    return next(each.file for each in manifest.variants if each.name == variant)


def write_weights(subject: Subject, file: Path) -> None:
    """Random weights from a seed, with spread: fresh ones answer every picture alike."""
    import timm  # here: only publishing needs it, and it takes seconds
    import torch
    from safetensors.torch import save_file
    from torchvision.models import get_model

    from tests.matrix.weights import SEED, Built, enlivened

    torch.manual_seed(SEED)
    network = (
        timm.create_model("resnet50", pretrained=False)
        if subject.name == "resnet50"
        else get_model("mobilenet_v3_small", weights=None)
    )
    whole = enlivened(Built(network, network, 1000), (224, 224))
    save_file({name: tensor.contiguous().clone() for name, tensor in whole.state_dict().items()}, file)


def bodies(work: Path) -> list[bytes]:
    """The JPEGs that every server gets, about 36 KB each; made once."""
    from tests.load.bench import photographs

    folder = work / "pictures"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for index, body in enumerate(photographs()):
            (folder / f"{index:02d}.jpg").write_bytes(body)
    return [file.read_bytes() for file in sorted(folder.glob("*.jpg"))][:PICTURES]


def _labels(recipe: Path) -> tuple[str, ...]:
    """The library's own."""
    from saccade.export.recipe import load_recipe

    return load_recipe(recipe).recipe.labels


def write_pictures(folder: Path, labels: Sequence[str]) -> None:
    """Data for the exporter: crops of photographs, none in two splits; with random weights any label will do."""
    import io

    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random = np.random.default_rng(7)
    for split, count in _SPLITS.items():
        for index in range(count):
            source = sources[index % len(sources)]
            width, height = int(random.integers(240, source.width)), int(random.integers(240, source.height))
            left, top = random.integers(0, source.width - width), random.integers(0, source.height - height)
            crop = source.crop((int(left), int(top), int(left) + width, int(top) + height))
            buffer = io.BytesIO()
            crop.save(buffer, "JPEG", quality=90)
            file = folder / split / labels[index % len(labels)] / f"{index:02d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(buffer.getvalue())
