"""Entries. Promises held here: unique, servable by name, every library network exists, recipes are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from saccade.export.recipe import Recipe
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import Task
from saccade.models.digits.digit_scenes import CLASS_NAMES
from tests.matrix.documents import labels_of, recipe_document, resized, small_batches, source_document
from tests.matrix.entries import ENTRIES, Entry, entry_of

_SOURCE: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)
_SIZE = {"width": 64, "height": 64, "fit": "stretch"}


def _named(kind: str) -> list[str]:
    sources = [source for entry in ENTRIES for source in (entry.source, entry.saved_from)]
    return [source.partition("/")[2] for source in sources if source.startswith(f"{kind}/")]


def test_every_entry_has_an_id_of_its_own_that_may_name_a_model() -> None:
    ids = [entry.id for entry in ENTRIES]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name)] == []
    assert all(entry_of(entry.id) is entry for entry in ENTRIES)


def test_every_kind_of_source_and_task_is_there() -> None:
    kinds = {entry.source.partition("/")[0] for entry in ENTRIES}
    assert kinds == {"timm", "torchvision", "transformers", "module", "onnx", "pt2"}
    assert {entry.task for entry in ENTRIES} == set(Task)
    assert sum(not entry.source.startswith(("module/", "onnx", "pt2")) for entry in ENTRIES) >= 45


def test_representatives_have_every_task_and_most_kinds() -> None:
    chosen = [entry for entry in ENTRIES if entry.is_representative]
    assert 10 <= len(chosen) <= 14
    assert {entry.task for entry in chosen} == set(Task) - {Task.INSTANCES}
    assert {entry.source.partition("/")[0] for entry in chosen} >= {
        "timm",
        "torchvision",
        "transformers",
        "onnx",
        "pt2",
    }


def test_timm_has_every_network_of_that_name() -> None:
    import timm

    assert [name for name in _named("timm") if not timm.is_model(name)] == []


def test_torchvision_has_every_network_of_that_name() -> None:
    from torchvision import models

    assert sorted(set(_named("torchvision")) - set(models.list_models())) == []


def test_transformers_has_every_model_type_of_that_name() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert sorted(set(_named("transformers")) - set(CONFIG_MAPPING_NAMES)) == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_recipe_of_an_entry_is_valid(entry: Entry) -> None:
    document = yaml.safe_load(yaml.safe_dump(recipe_document(entry, "network.safetensors")))
    document["preprocess"] = _SIZE
    if entry.task is Task.INSTANCES:  # otherwise the source says it
        document["task"] |= {"max_detections": 100, "masks": {"form": "boxes", "height": 28, "width": 28}}
    if entry.task is Task.EMBED:
        document["task"] |= {"dim": 192}
    if entry.task is Task.IMAGE:
        document["task"] |= {"picture": "rgb"}
    recipe = Recipe.model_validate(document)
    assert recipe.model == entry.id
    assert recipe.labels == labels_of(entry)
    assert entry.trained is not None or entry.task is Task.IMAGE or set(CLASS_NAMES) <= set(recipe.labels)
    assert _SOURCE.validate_python(source_document(entry)) == recipe.source


def test_backgrounds_come_first_where_the_library_has_them() -> None:
    assert labels_of(entry_of("torchvision-ssd300-vgg16"))[0] == "__background__"
    assert labels_of(entry_of("torchvision-fcn-resnet50"))[0] == "background"
    assert labels_of(entry_of("transformers-detr")) == CLASS_NAMES


def test_plans_of_another_size_change_nothing_else() -> None:
    entry = entry_of("ours-ddrnet-ddrnet23-slim")
    assert entry.plan_size == (2048, 1024)
    document = recipe_document(entry, "w")
    larger = resized(document, entry.plan_size)
    assert larger["preprocess"] == {"width": 2048, "height": 1024, "fit": "letterbox"}
    assert {**larger, "preprocess": None} == {**document, "preprocess": None}


def test_small_batches_make_a_valid_recipe_too() -> None:
    document = small_batches(recipe_document(entry_of("timm-resnet50"), "network.safetensors"))
    recipe = Recipe.model_validate({**document, "preprocess": _SIZE})
    assert recipe.allowed_batch_sizes == recipe.qualify.parity_batch_sizes == (1, 3)


def test_our_factories_exist() -> None:
    root = Path(__file__).resolve().parents[3]
    for name in _named("module"):
        module, _, factory = name.removeprefix("saccade.").partition(":")
        assert f"def {factory}(" in (root / f"{module.replace('.', '/')}.py").read_text("utf-8")
