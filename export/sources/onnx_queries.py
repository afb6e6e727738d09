"""Tells whether the scores of DETR's queries are raw or probabilities, and whether one column is 'nothing'."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import sum_to_one
from saccade.export.sources.onnx_classes import PROBABILITIES
from saccade.export.sources.onnx_signs import Found, OutputSign
from saccade.export.sources.onnx_words import ScoreKind


def query_scores(
    file: str,
    logits: OutputSign,
    given: ScoreKind | None,
    labels: int | None,
    hint: int | None,
    findings: list[Found],
) -> tuple[ScoreKind, int | None]:
    """Returns what the numbers are, and how many columns are classes; None: only the recipe's labels can tell.

    What was found is added to `findings`.
    Raises SourceError with the word to write.
    """
    columns = int(logits.shape[1] or 0)
    is_choice = logits.values is not None and sum_to_one(logits.values, 2)
    has_softmax = is_choice or logits.made_by == "Softmax"
    is_finished = has_softmax or logits.made_by in PROBABILITIES or _is_in_unit_range(logits)
    if is_finished and given not in (None, "probabilities"):
        raise SourceError(
            f"{file}: outputs.scores: {given}, but {logits} holds probabilities already ({_why(logits, is_choice)}); "
            "write `outputs: {scores: probabilities}`"
        )
    if given == "probabilities" and not is_finished and logits.values is not None:
        raise SourceError(f"{file}: outputs.scores: probabilities, but {logits} has values outside of 0..1")
    known = labels or hint
    if is_finished or given == "probabilities":
        if not has_softmax:
            known = columns  # each is a class of its own
        if known is None and given is not None:
            return given, None
        if known not in (columns, columns - 1):
            raise SourceError(
                f"{file}: {logits} holds probabilities of one choice each: {columns} classes, or {columns - 1} and "
                f"'nothing', and labels do not tell ({_said(known)}); write {columns - 1} or {columns} `labels`"
            )
        if given is None:
            findings.append(("outputs.scores", "probabilities", "found", _why(logits, is_choice)))
        if known == columns - 1:
            findings.append(("classes", known, "found", f"{columns} columns for {known} labels: the last is 'nothing'"))
        return "probabilities", known
    if given is None:
        if known not in (columns, columns - 1):
            third = ", or probabilities if the file ends in either itself" if logits.values is None else ""
            raise SourceError(
                f"{file}: {logits} is {columns} classes with a sigmoid each, or {columns - 1} and 'nothing' under one "
                f"softmax, and labels do not tell ({_said(known)}); write `labels`, or outputs.scores: "
                f"sigmoid or logits{third}"
            )
        given = "sigmoid" if known == columns else "logits"
        findings.append(("outputs.scores", given, "found", f"{columns} columns for {known} labels"))
    return given, columns - 1 if given == "logits" else columns


def _is_in_unit_range(output: OutputSign) -> bool:
    values = output.values
    return values is not None and values.size > 0 and bool(values.min() >= 0.0 and values.max() <= 1.0)


def _said(known: int | None) -> str:
    return "their number is not known" if known is None else f"there are {known}"


def _why(output: OutputSign, is_choice: bool) -> str:
    if is_choice:
        return "values in 0..1, and every row sums to 1"
    if output.made_by in PROBABILITIES:
        return f"by the graph, which ends in {output.made_by}"
    return "all values lie in 0..1"
