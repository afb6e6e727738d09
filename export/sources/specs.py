"""Defines the `source` section of a recipe; the source itself checks the names."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Frozen, Task

SourceKindName = Literal["torchvision", "timm", "transformers", "module", "pt2", "onnx"]
SOURCE_KIND_NAMES: tuple[SourceKindName, ...] = get_args(SourceKindName)


class TorchvisionSource(Frozen):
    """`torchvision/resnet50`: a model builder of torchvision, by name."""

    kind: Literal["torchvision"]
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TimmSource(Frozen):
    """`timm/resnet50`: a timm model; preprocessing comes from its pretrained_cfg."""

    kind: Literal["timm"]
    name: str | None = None  # null: the weights directory's config.json names the architecture
    arguments: dict[str, Any] = Field(default_factory=dict)


class TransformersSource(Frozen):
    """`transformers`: everything comes from the weights directory; `transformers/segformer`: a model type, random."""

    kind: Literal["transformers"]
    name: str | None = None  # a model type, such as `segformer`
    task: Task | None = None  # where one model type serves several
    arguments: dict[str, Any] = Field(default_factory=dict)  # keys of the model's configuration


class ModuleSource(Frozen):
    """`module/package.file:factory` or `module/path/file.py:factory`: a network built by calling a function.

    Modules and files are looked for in the recipe's folder and in the current directory; weights are safetensors.
    """

    kind: Literal["module"]
    factory: Annotated[str, Field(pattern=r"^([\w.]+|[\w./-]+\.py):\w+$")]
    arguments: dict[str, Any] = Field(default_factory=dict)
    method: Annotated[str, Field(pattern=r"^[a-z_]\w*$")] = "forward"  # what inference calls, where it is not forward


class Pt2Source(Frozen):
    """`pt2`: a program saved by torch.export.save; `weights` names the file."""

    kind: Literal["pt2"]


class OnnxSource(FileWords):
    """`onnx`: an existing ONNX file of float images; `weights` names the file, the words say what it does not."""

    kind: Literal["onnx"]


def _from_text(value: object) -> object:
    """`kind/name` as a mapping. Raises ValueError naming the kinds there are."""
    if isinstance(value, str):
        given, _, name = value.partition("/")
        value = {"kind": given} | ({"factory" if given == "module" else "name": name} if name else {})
    if isinstance(value, dict):
        kind = value.get("kind")
        if kind not in SOURCE_KIND_NAMES:
            near = difflib.get_close_matches(str(kind), SOURCE_KIND_NAMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown kind {kind!r}{hint} There are: {', '.join(SOURCE_KIND_NAMES)}")
    return value


SourceSpec = Annotated[
    Annotated[
        TorchvisionSource | TimmSource | TransformersSource | ModuleSource | Pt2Source | OnnxSource,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_from_text),
]


def source_name(source: SourceSpec) -> str:
    """One line for manifests and reports: `timm/resnet50`, `saccade.models.networks.resnet:digits_classifier`."""
    match source:
        case ModuleSource():
            return source.factory
        case Pt2Source() | OnnxSource():
            return source.kind
        case _:
            return source.kind if source.name is None else f"{source.kind}/{source.name}"
