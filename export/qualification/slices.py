"""Measures the metric on each slice of the test pictures, paired with the eager network on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.data_step import DATA_JSON, read_data_report
from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.accuracy import class_ids_of
from saccade.export.qualification.evidence import Evidence, point_value, slice_accuracy
from saccade.export.qualification.metric_figures import metric_drop
from saccade.export.qualification.qualify_report import SliceFigure
from saccade.export.steps import StepContext
from saccade.models.contract.specs import Task
from saccade.models.metrics.retrieval import has_peer

Rows = NDArray[np.int64]


def slice_figures(
    evidence: Evidence, reference: Evidence, rows_by_slice: Mapping[str, Rows], resamples: int
) -> tuple[SliceFigure, ...]:
    """Returns every slice with any picture, the lowest metric first."""
    figures = []
    for name, rows in rows_by_slice.items():
        if len(rows):
            accuracy = slice_accuracy(evidence, reference, rows, resamples)
            figures.append(
                SliceFigure(
                    name=name,
                    images=len(rows),
                    value=accuracy.value.value,
                    ci_low=accuracy.value.low,
                    ci_high=accuracy.value.high,
                    reference=point_value(reference.part(rows)),
                    drop=metric_drop(accuracy),
                )
            )
    return tuple(sorted(figures, key=lambda figure: figure.value))


def rows_by_slice(context: StepContext, split: ImageSplit) -> dict[str, Rows]:
    """Returns the rows of each slice among the images that the metric counts; an embedder's are its queries."""
    slices = read_data_report(context.inputs["data"].file(DATA_JSON)).slices
    rows = {name: np.array(each, np.int64) for name, each in slices.items()}
    if context.recipe.task.task is not Task.EMBED:
        return rows
    queries = has_peer(class_ids_of(split)) if rows else np.zeros(0, np.bool_)
    places = np.cumsum(queries) - 1
    return {name: places[each[queries[each]]] for name, each in rows.items()}
