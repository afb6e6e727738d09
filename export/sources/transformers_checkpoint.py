"""Reads configuration and weights of a transformers network from local files, without pickles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from saccade.export.errors import SourceError
from saccade.export.sources.names import near_names
from saccade.export.sources.specs import TimmSource, TransformersSource
from saccade.export.sources.weights import RANDOM_WEIGHTS_SEED, load_weights
from saccade.models.contract.specs import Task

_ATTENTION = "eager"  # plain products and a softmax: the form every runtime has fused kernels for
_NAMED_MISFITS = 3
_TIMM_WRAPPER = "timm_wrapper"
_CLASSES_BY_TASK: tuple[tuple[Task, dict[str, Any]], ...] = (
    (Task.CLASSIFY, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    (Task.DETECT, modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES),
    (Task.SEGMENT, modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES),
    (Task.SEGMENT, modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES),
    (Task.INSTANCES, {"mask2former": modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES["mask2former"]}),
    (Task.IMAGE, modeling_auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES),
    (Task.IMAGE, modeling_auto.MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES),
    # The picture's side of networks for pictures and texts, then backbones that pool.
    (Task.EMBED, modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    (Task.EMBED, {"clip_vision_model": ("CLIPVisionModelWithProjection", "CLIPVisionModel")}),
    (Task.EMBED, modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES),
    (Task.EMBED, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),  # without its classifier
)
_ASKED_FOR = (
    Task.INSTANCES,
    Task.IMAGE,
    Task.EMBED,
)  # a checkpoint of another task serves them too, where the recipe says so


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a directory or a model type stands for."""

    config: Any  # PreTrainedConfig
    model_class: str  # a class of transformers
    task: Task

    @property
    def labels(self) -> tuple[str, ...]:
        """By class id."""
        names = self.config.id2label
        return tuple(str(names.get(index, f"class {index}")) for index in range(self.config.num_labels))


def checkpoint_of(source: TransformersSource, weights: Path | None) -> Checkpoint:
    """Raises SourceError for an unknown model type and where the task is not clear."""
    config = _config(source, weights)
    model_class, task = _class_and_task(source, config)
    return Checkpoint(config, model_class, task)


def wrapped_timm(source: TransformersSource, weights: Path | None) -> TimmSource | None:
    """The timm network inside of transformers' wrapper, whose directory timm's own source reads; None: no wrapper."""
    arguments = dict(source.arguments)
    if source.name == _TIMM_WRAPPER:
        name = arguments.pop("architecture", None)
    elif weights is not None and (weights / "config.json").is_file():
        if _config_of_directory(weights, {}).model_type != _TIMM_WRAPPER:
            return None
        name = None
    else:
        return None
    return TimmSource(kind="timm", name=name, arguments=arguments)


def loaded_model(checkpoint: Checkpoint, weights: Path | None) -> nn.Module:
    """The model in eval mode, float32. Raises SourceError when the weights do not fit."""
    if weights is not None and weights.is_dir():
        model = _from_directory(getattr(transformers, checkpoint.model_class), checkpoint, weights)
    else:
        model = random_model(checkpoint)
        if weights is not None:
            load_weights(model, weights)
    module: nn.Module = model.float().eval().requires_grad_(False)
    return module


def model_types() -> list[str]:
    """Every model type that some task here serves."""
    return sorted({model_type for _, classes in _CLASSES_BY_TASK for model_type in classes})


def _config(source: TransformersSource, weights: Path | None) -> Any:
    if weights is not None and (weights / "config.json").is_file():
        config = _config_of_directory(weights, source.arguments)
        if source.name is not None and source.name != config.model_type:
            raise SourceError(
                f"source: {weights} holds a {config.model_type}, not a {source.name}; say source: transformers"
            )
        return config
    if source.name is None:
        held = "no `weights`" if weights is None else f"no config.json in {weights}"
        raise SourceError(
            f"source: transformers has {held}; name a directory with config.json and model.safetensors as weights, "
            "or a model type for random weights: transformers/segformer"
        )
    if source.name not in CONFIG_MAPPING:
        raise _unknown_type(source.name)
    try:
        return CONFIG_MAPPING[source.name](**source.arguments)
    except Exception as error:  # configurations validate with errors of their own, one class per library version
        raise SourceError(f"source.arguments do not fit {source.name}: {_first_line(error)}") from error


def _config_of_directory(weights: Path, arguments: dict[str, Any]) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            weights, local_files_only=True, trust_remote_code=False, **arguments
        )
    except Exception as error:  # as above; an unknown model type and remote code are ValueErrors among others
        raise SourceError(
            f"config.json in {weights} cannot be used: {_first_line(error)}. Code that comes with a checkpoint is "
            "never run; a model type must be one that transformers has"
        ) from error


def _class_and_task(source: TransformersSource, config: Any) -> tuple[str, Task]:
    """The class that config.json names, else the only one there is for the model type."""
    known = [(name, task) for task, classes in _CLASSES_BY_TASK for name in _as_tuple(classes.get(config.model_type))]
    # One network serves both kinds of segmentation; config.json does not say for which it was trained.
    usual = [each for each in known if each[1] not in _ASKED_FOR]
    offered = usual if source.task is None else [each for each in known if each[1] is source.task]
    named = [each for each in offered if each[0] in (config.architectures or ())]
    for other in (Task.IMAGE, Task.EMBED):  # those of networks that have neither classes nor anything else
        if source.task is None and not named:
            others = [each for each in known if each[1] is other]
            named = [each for each in others if each[0] in (config.architectures or ())]
            offered = offered or others
    if named:
        return named[0]
    if not offered:
        wanted = "" if source.task is None else f" for {source.task}"
        raise _unknown_type(config.model_type, f"transformers has no {config.model_type} network{wanted}")
    first_of_task = {task: (name, task) for name, task in reversed(offered)}
    if len(first_of_task) > 1:
        tasks = " or ".join(sorted(first_of_task))
        raise SourceError(f"source: {config.model_type} serves several tasks; set source.task to {tasks}")
    return next(iter(first_of_task.values()))


def random_model(checkpoint: Checkpoint) -> Any:
    """The model before its weights are read. Raises SourceError for a configuration that cannot be built."""
    model_class = getattr(transformers, checkpoint.model_class)
    torch.manual_seed(RANDOM_WEIGHTS_SEED)
    _forget_pretrained_backbones(checkpoint.config)
    try:
        return model_class._from_config(checkpoint.config, attn_implementation=_ATTENTION)
    except Exception as error:  # lists of the wrong length, names nobody has, a library missing
        raise SourceError(
            f"source.arguments do not fit {checkpoint.config.model_type}: {_first_line(error)}"
        ) from error


def _from_directory(model_class: Any, checkpoint: Checkpoint, weights: Path) -> Any:
    if not any(weights.glob("*.safetensors")):
        raise SourceError(
            f"{weights} holds no .safetensors file; a pickle such as pytorch_model.bin can run code when it is read. "
            f"Convert it where you trust it: {checkpoint.model_class}.from_pretrained(DIR).save_pretrained(DIR)"
        )
    _forget_pretrained_backbones(checkpoint.config)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped; it would draw over ours
    try:
        model, loading = model_class.from_pretrained(
            weights,
            config=checkpoint.config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation=_ATTENTION,
            output_loading_info=True,
        )
    except Exception as error:  # shapes that differ, files cut short: each a class of its own
        raise SourceError(f"weights {weights} do not fit {checkpoint.model_class}: {_first_line(error)}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        more = f" and {len(missing) - _NAMED_MISFITS} more" if len(missing) > _NAMED_MISFITS else ""
        raise SourceError(
            f"weights {weights} do not fit {checkpoint.model_class}: {', '.join(missing[:_NAMED_MISFITS])}{more} "
            "missing; was the checkpoint saved for another task?"
        )
    return model


def _forget_pretrained_backbones(config: Any) -> None:
    """A backbone's own weights would be downloaded, only to be overwritten."""
    if getattr(config, "use_pretrained_backbone", False):
        config.use_pretrained_backbone = False


def _unknown_type(name: str, text: str | None = None) -> SourceError:
    near = near_names(name, model_types())
    hint = f"did you mean {', '.join(near)}? " if near else ""
    said = text or f"transformers has no model type {name!r}"
    return SourceError(f"source: {said}; {hint}{len(model_types())} model types are served")


def _as_tuple(names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return lines[1]  # the library's own validation says in its first line only which rule was broken
    return lines[0] if lines else type(error).__name__
