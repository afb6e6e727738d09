"""Reads vectors from an ONNX file whose recipe says task: embed; their shape alone is a classifier's too."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_fits import ensure_outputs_fit
from saccade.export.sources.onnx_signs import FileSigns, OutputSign
from saccade.export.sources.onnx_words import OutputWords
from saccade.models.contract.specs import Task, TaskSpec


def embedder(
    signs: FileSigns, outputs: tuple[OutputSign, ...], given: OutputWords
) -> tuple[TaskSpec, int | None, OutputWords]:
    """The task, no class count, and the words completed. Raises SourceError as `vector_dim` does."""
    spec = TaskSpec(task=Task.EMBED, dim=vector_dim(signs, outputs))
    return spec, None, given.model_copy(update={"names": (outputs[0].tensor.name,)})


def vector_dim(signs: FileSigns, outputs: tuple[OutputSign, ...]) -> int:
    """How many numbers the one output that is read has for a picture. Raises SourceError where these are no vectors."""
    output = only_output(signs, outputs, "embed")
    ensure_outputs_fit(signs, outputs, Task.EMBED, None)
    columns = output.shape[0]
    if columns is None:
        raise SourceError(
            f"{signs.file}: {output} has as many numbers as the picture's size makes of it, and no vector"
        )
    return columns


def only_output(signs: FileSigns, outputs: tuple[OutputSign, ...], task: str) -> OutputSign:
    """Raises SourceError where the file has several outputs and the recipe names none."""
    if len(outputs) != 1:
        raise SourceError(
            f"{signs.file} has {len(outputs)} outputs and task {task} reads one; write outputs.names with one of: "
            f"{'; '.join(str(output) for output in signs.outputs)}"
        )
    return outputs[0]
