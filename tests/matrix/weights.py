"""Seeded random weights as files. Promises: the library's own keys and formats, outputs with real spread.

Fresh networks have zeros and near-zeros (last normalisations, layer scales, class heads), under which an answer hardly
depends on the image. Those get values; and the last layer with one output per class, like those that rank proposals,
is scaled so that its outputs differ. Batch statistics are measured on images of noise and on digit scenes, which the
matrix runs on, as training would leave them: pictures unlike those that were measured make layers enlarge rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from saccade.models.contract.specs import Task
from saccade.models.digits.digit_scenes import Split, decode_rgb, scene_samples
from tests.matrix.documents import labels_of, source_document
from tests.matrix.entries import Entry
from tests.matrix.trained import fetched

SEED = 20
_SPREAD = 2.0  # standard deviation of the last layer's outputs
_NEGLIGIBLE = 1e-3  # layer scales start at 1e-4 and below
_SMALL_MATRIX = 0.02  # what most libraries draw class heads with
_IMAGES = 4  # of noise, and as many scenes
_SHARE_OF_MEAN = 0.1  # how far a channel's variance moves to that of its layer
_PROCESSOR_OF = {"rt_detr_v2": "rt_detr", "d_fine": "rt_detr"}  # the library's own checkpoints name the older processor

Call = Callable[[Tensor], object]  # runs the network on normalised images (n, 3, h, w)


@dataclass(frozen=True, slots=True)
class Built:
    """A library's own network, how to call it, and how many classes its head has."""

    network: nn.Module
    call: Call
    classes: int
    ranking: tuple[nn.Module, ...] = ()  # layers inside whose outputs rank boxes, in the order in which they run


def write_weights(entry: Entry, size: tuple[int, int], directory: Path) -> Path:
    """A file or directory for the recipe's `weights`; `size` is the network's input (width, height)."""
    torch.manual_seed(SEED)
    match entry.source.partition("/")[0]:
        case "onnx" if entry.trained is not None:
            return fetched(entry.trained)
        case "transformers":
            return _transformers_directory(entry, size, directory / "checkpoint")
        case "onnx" | "pt2" as kind:
            inner = Entry(family=entry.family, source=entry.saved_from, task=entry.task)
            return _network_file(enlivened(_built(inner, size), size), size, directory / f"network.{kind}")
        case _:
            built = enlivened(_built(entry, size), size)
            path = directory / "network.safetensors"
            save_file({name: tensor.contiguous().clone() for name, tensor in built.state_dict().items()}, path)
            return path


@torch.no_grad()
def enlivened(built: Built, size: tuple[int, int]) -> nn.Module:
    """Side effect: changes the network's parameters and statistics; returns it in eval mode."""
    network = built.network.eval()
    generator = torch.Generator().manual_seed(SEED)
    for parameter in network.parameters():
        if parameter.abs().max() <= _NEGLIGIBLE and parameter.numel() > 1:
            if parameter.ndim > 1 and min(parameter.shape) > 1:
                parameter.normal_(0.0, _SMALL_MATRIX, generator=generator)
            elif parameter.any():
                parameter.fill_(0.1)  # a layer scale: its branch counts now
            else:
                parameter.normal_(0.0, 0.1, generator=generator)
    images = statistics_images(size)
    _measure_statistics(network, built.call, images)
    for layer in built.ranking:
        _spread(layer, _outputs_while(built.call, images, [layer])[layer])
    _spread_classes(network, built.call, images, built.classes)
    _lighten(network, built.call, images)
    return network


def _lighten(network: nn.Module, call: Call, images: Tensor) -> None:
    """Depths end in a ReLU, which makes untrained ones 0: those of the last layer get a spread of 1 around 4."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.out_channels == 1]
    if "DepthEstimation" not in type(network).__name__ or not layers:
        return
    last = layers[-1]
    found = _outputs_while(call, images, [last])[last]
    assert last.bias is not None
    factor = 1.0 / found.std()
    last.weight.mul_(factor)
    last.bias.copy_(last.bias * factor + 4.0 - found.mean() * factor)


def noise_images(size: tuple[int, int]) -> Tensor:
    """Normalised images (n, 3, h, w) with structure at several scales, as photographs have."""
    width, height = size
    generator = torch.Generator().manual_seed(SEED)
    images = torch.zeros(_IMAGES, 3, height, width)
    for factor in (64, 16, 4):
        coarse = torch.randn(_IMAGES, 3, max(2, height // factor), max(2, width // factor), generator=generator)
        images += functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return images / images.std()


def statistics_images(size: tuple[int, int]) -> Tensor:
    """What batch statistics are measured on: noise, then scenes (n, 3, h, w)."""
    return torch.cat([noise_images(size), scene_images(size)])


def scene_images(size: tuple[int, int]) -> Tensor:
    """Digit scenes (n, 3, h, w), roughly normalised: between -2 and 2, as libraries' mean and std make of bytes."""
    width, height = size
    pictures = [torch.from_numpy(decode_rgb(scene.jpeg)) for scene in scene_samples(Split.TRAIN, SEED, _IMAGES)]
    images = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
    return (functional.interpolate(images, size=(height, width), mode="bilinear", antialias=True) - 0.5) * 4


def _measure_statistics(network: nn.Module, call: Call, images: Tensor) -> None:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of what it sees
        norm.reset_running_stats()
        norm.train()
    if norms:
        call(images)
    for norm in norms:
        # A channel that hardly moved on so few images would be enlarged without measure.
        variance = norm.get_buffer("running_var")
        variance.lerp_(variance.mean(), _SHARE_OF_MEAN)
    network.eval()


def _spread_classes(network: nn.Module, call: Call, images: Tensor, classes: int) -> None:
    """Scales the layers that ran last among those with `classes` outputs, or some per class."""
    heads = [module for module in network.modules() if _outputs_of(module) % classes == 0 and _outputs_of(module)]
    ran = _outputs_while(call, images, heads)
    last = [module for module in ran if _outputs_of(module) == classes][-1:] or list(ran)[-1:]
    for head in last:
        _spread(head, ran[head])


def _outputs_while(call: Call, images: Tensor, layers: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
    """The last output of each layer that ran, in the order in which they ran."""
    ran: dict[nn.Module, Tensor] = {}

    def remember(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        ran.pop(module, None)
        ran[module] = output

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    call(images)
    for hook in hooks:
        hook.remove()
    return ran


def _spread(head: nn.Module, output: Tensor) -> None:
    spread = _without_bias(head, output).std()
    if bool(spread > 0):
        head.weight *= _SPREAD / spread  # type: ignore[operator]  # a Linear or Conv2d


def _without_bias(head: nn.Module, output: Tensor) -> Tensor:
    bias = head.bias
    if not isinstance(bias, Tensor):
        return output
    return output - (bias if isinstance(head, nn.Linear) else bias[:, None, None])


def _outputs_of(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else 0


def _built(entry: Entry, size: tuple[int, int]) -> Built:
    kind, _, name = entry.source.partition("/")
    source, classes = source_document(entry), len(labels_of(entry))
    match kind:
        case "timm":
            import timm

            network = timm.create_model(name, pretrained=False, **_sized(name, size), **source["arguments"])
            return Built(network, network, classes)
        case "torchvision":
            return _torchvision(name, entry.task, source["arguments"], classes, size)
        case _:
            from importlib import import_module

            module, _, factory = name.partition(":")
            network = getattr(import_module(module), factory)(**source["arguments"])
            return Built(network, network, classes)


def _sized(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """timm's networks of one size are told when it is another one."""
    import timm

    card = timm.get_pretrained_cfg(name)
    is_other = card is not None and card.fixed_input_size and size != (card.input_size[2], card.input_size[1])
    return {"img_size": (size[1], size[0])} if is_other else {}


def _torchvision(name: str, task: Task, arguments: dict[str, Any], classes: int, size: tuple[int, int]) -> Built:
    from torchvision import models

    if task in (Task.CLASSIFY, Task.EMBED):
        network = models.get_model(name, weights=None, **arguments)
        return Built(network, network, classes)
    network = models.get_model(name, weights=None, weights_backbone=None, **arguments)
    if task is Task.SEGMENT:
        return Built(network, network, classes)
    network.transform.fixed_size = size  # otherwise it enlarges what it is given
    # Untrained proposals score the same but for their last digit, so that rounding would choose among them.
    ranking = (network.rpn.head.cls_logits,) if hasattr(network, "rpn") else ()
    if task is Task.INSTANCES:
        ranking += (network.roi_heads.box_predictor.cls_score,)
    return Built(network, lambda images: network(list(images)), classes, ranking)


def _transformers_directory(entry: Entry, size: tuple[int, int], directory: Path) -> Path:
    """config.json, preprocessor_config.json and model.safetensors, as the library saves them."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    name = entry.source.partition("/")[2]
    labels = dict(enumerate(labels_of(entry)))
    named = {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    # PVT's configuration counts 1000 classes whatever its labels are, unless it is told.
    config = transformers.AutoConfig.for_model(name, **named, num_labels=len(labels), **entry.arguments)
    network = getattr(transformers, transformers_class(name, entry.task))._from_config(config)
    images_of = getattr(network, "get_image_features", network)
    enlivened(Built(network, lambda images: images_of(pixel_values=images), len(labels)), size)
    network.save_pretrained(directory)
    if name == "timm_wrapper":  # timm's card of the architecture has its rule
        return directory
    like = type(transformers.AutoConfig.for_model(_PROCESSOR_OF.get(name, name)))
    processors: Any = IMAGE_PROCESSOR_MAPPING[like]
    (processors.get("pil") or processors["torchvision"])().save_pretrained(directory)  # the newest have only the latter
    return directory


def transformers_class(name: str, task: Task) -> str:
    """The library's first class for a model type and a task."""
    from transformers.models.auto import modeling_auto

    segmenters: dict[str, Any] = {
        **modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    }
    names: dict[Task, dict[str, Any]] = {
        Task.CLASSIFY: modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        Task.DETECT: modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        Task.SEGMENT: segmenters,
        Task.INSTANCES: segmenters,
        Task.IMAGE: {
            **modeling_auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES,
            **modeling_auto.MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES,
        },
        Task.EMBED: {
            **modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES,
            **modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        },
    }
    classes = names[task][name]
    return str(classes if isinstance(classes, str) else classes[0])


def _network_file(network: nn.Module, size: tuple[int, int], path: Path) -> Path:
    """The network as others would hand it over: normalised NCHW floats in, logits out, any batch."""
    width, height = size
    images = torch.zeros(2, 3, height, width)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},))
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    else:
        names = (["images"], ["logits"])
        converted = torch.onnx.export(program, dynamo=True, verbose=False, input_names=names[0], output_names=names[1])
        assert converted is not None  # it is None only with dynamo=False
        converted.save(path)
    return path
