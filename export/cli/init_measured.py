"""Measures a new recipe on labelled tuning pictures: readings that the file leaves open, then limits to propose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from saccade.export.cli.recipe_text import line
from saccade.export.qualification.proposals import BATCH, Proposal, proposal
from saccade.export.qualification.readings import Measured, measured_readings
from saccade.export.recipe import LoadedRecipe, Recipe
from saccade.export.sources.onnx_recognition import SettledWord
from saccade.models.contract.specs import Task

_WORDS = {"preprocess": ("channel_order", "fit"), "value_range": ("value_range",)}
_COLOURS = ("channel_order", "value_range")  # words of pictures with three channels


@dataclass(frozen=True, slots=True)
class Readings:
    """The recipe's text and table with what measuring showed, and one sentence per word that was measured."""

    text: str
    findings: tuple[SettledWord, ...]
    sentences: tuple[str, ...]


def measured(loaded: LoadedRecipe, text: str, findings: tuple[SettledWord, ...]) -> tuple[Readings, Proposal]:
    """Raises ExportError or SaccadeError when the network cannot run, or the data has no such pictures."""
    # imported here because torch and image libraries are needed only when something is measured
    from saccade.export.data.datasets import DataStore
    from saccade.export.qualification.reference import eager_answer
    from saccade.export.sources import load_network

    data = DataStore()
    split = data.split(loaded, "tuning")
    network = load_network(loaded.network_request())
    batch = 1 if network.not_batchable_reason else BATCH
    recipe = loaded.recipe
    figures: tuple[Measured, ...] = ()
    words = _assumed(text, findings)
    if recipe.task.task is Task.IMAGE:  # ranges and fit are settled by then
        words &= {"channel_order"}
    if words and recipe.gate.needs_labels:
        recipe, figures = measured_readings(
            lambda read, images: list(eager_answer(network, read, images)), split.samples, recipe, words, batch
        )
    readings = with_readings(recipe, text, findings, figures)
    if recipe.preprocess != loaded.recipe.preprocess:
        split = data.split(loaded.model_copy(update={"recipe": recipe}), "tuning")
    return readings, proposal(lambda images: list(eager_answer(network, recipe, images)), split, recipe, batch)


def with_readings(
    recipe: Recipe, text: str, findings: tuple[SettledWord, ...], figures: Iterable[Measured]
) -> Readings:
    """Writes the recipe's readings into the lines that said they were assumed, with the figures as their reason."""
    by_word = {each.word: each for each in figures}
    sentences = tuple(
        f"{each.word}: {'found by measuring' if each.is_clear else 'stays assumed, without a clear difference'}: {each}"
        for each in by_word.values()
    )
    for key, words in _WORDS.items():
        clear = [by_word[word] for word in words if word in by_word and by_word[word].is_clear]
        if not clear:
            continue
        why = "; ".join(f"{each.word} {each}" for each in clear)
        rest = [word for word in words if all(each.word != word for each in clear)]
        comment = f"found by measuring: {why}" + (f"; assumed: {', '.join(rest)}" if rest else "")
        name, value = _section(recipe, text, key)
        text = _with_line(text, key, line(name, value, comment))
        shown = ", ".join(each.figures[0][0] for each in clear)
        findings = tuple(
            replace(each, value=shown, origin="found", why=f"by measuring: {why}") if each.word == key else each
            for each in findings
        )
    return Readings(text, findings, sentences)


def _assumed(text: str, findings: Iterable[SettledWord]) -> set[str]:
    """Returns the words to measure: those of lines that say that they are assumed."""
    rows = list(findings)
    is_grey = any(each.word == "channels" and each.value == "1" for each in rows)
    keys = {each.word for each in rows if each.origin == "assumed"}
    words = {word for key in _WORDS if key in keys and _with_line(text, key, "") != text for word in _WORDS[key]}
    return words - set(_COLOURS) if is_grey else words


def _section(recipe: Recipe, text: str, key: str) -> tuple[str, object]:
    if key == "preprocess":
        pixels = recipe.preprocess
        facts = pixels.model_dump(mode="json", exclude={"width", "height"}, exclude_defaults=True)
        return key, {"fit": pixels.fit, "channel_order": pixels.channel_order, **facts}
    mean, std = recipe.normalisation.mean, recipe.normalisation.std
    if len({*mean}) == len({*std}) == 1:
        return key, [round(-mean[0] / std[0], 6) + 0.0, round((1.0 - mean[0]) / std[0], 6)]
    return "normalisation", {"mean": list(mean), "std": list(std)}


def _with_line(text: str, key: str, new: str) -> str:
    rows = text.splitlines(keepends=True)
    return "".join(new if row.startswith(f"{key}:") and "# assumed" in row else row for row in rows)
