"""Torch modules in ONNX Runtime, with a dynamic batch and the project's own operators, and nothing on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.export.convert.suppression import translation_table

Arrays = list[NDArray[Any]]


class ConvertedModule:
    """A module after `torch.export` and `torch.onnx.export`; call it as the module."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor], opset: int = 20) -> None:
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = tuple({0: batch} for _ in example)
        with torch.no_grad(), _quiet_exporter():
            program = torch.export.export(module, tuple(example), dynamic_shapes=shapes, strict=False)
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[f"input_{index}" for index in range(len(example))],
                custom_translation_table=translation_table(),
                verbose=False,
            )
        assert converted is not None
        self.model = converted.model_proto
        self._session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: Tensor) -> Arrays:
        feed = {f"input_{index}": tensor.numpy() for index, tensor in enumerate(inputs)}
        answers: Arrays = self._session.run(None, feed)
        return answers


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter logs a line per torchvision operator it does not find."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
