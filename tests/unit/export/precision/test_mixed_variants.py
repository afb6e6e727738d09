"""The steps that make fp16 and bf16: what they tell of the file, and what they refuse."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest

from saccade.export.artifact import Artifact
from saccade.export.data.datasets import DataStore
from saccade.export.data.image_split import ImageSplit, Split
from saccade.export.errors import DataRefused, GraphError
from saccade.export.graph.large_files import whole_graph
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.precision.effective_precision import dtype_table
from saccade.export.precision.mixed_precision import DTYPES_FILE, make_bf16, make_fp16
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.steps import StepContext
from saccade.export.variants import VariantKind
from tests.unit.export.precision.mixed_networks import SIDE, classifier

RECIPE = Path(__file__).parents[4] / "models" / "recipes" / "digits-classifier.yaml"


class Splits(DataStore):
    """The same images for every split, or other ones per split."""

    def __init__(self, are_shared: bool) -> None:
        super().__init__()
        self._are_shared = are_shared

    def split(self, loaded: LoadedRecipe, name: Split) -> ImageSplit:
        label = "all" if self._are_shared else name
        images = np.random.default_rng(len(name)).integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8)
        digests = tuple(hashlib.sha256(f"{label}{index}".encode()).hexdigest() for index in range(32))
        return ImageSplit(name, [None] * 32, images, [], digests)  # type: ignore[list-item]  # truth is not asked for


def context(directory: Path, variant: VariantKind, are_shared: bool = False) -> StepContext:
    loaded = load_recipe(RECIPE)
    recipe = loaded.recipe.model_copy(update={"extra_outputs": ("logits",)})
    source, out = directory / "source", directory / "out"
    source.mkdir()
    out.mkdir()
    onnx.save(classifier(), source / MODEL_FILE)
    return StepContext(
        loaded=loaded.model_copy(update={"recipe": recipe}),
        variant=variant,
        form="dense",
        out=out,
        inputs={"onnx_optimization": Artifact(source, "0" * 64, "0" * 64, {}, 0.0)},
        data=Splits(are_shared),
        repository=directory,
        note=lambda text: None,
    )


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_variant_says_how_much_of_it_is_narrow_and_lists_every_node(tmp_path: Path, variant: VariantKind) -> None:
    maker = make_fp16 if variant == "fp16" else make_bf16
    detail = maker(context(tmp_path, variant))
    made = onnx.load(tmp_path / "out" / MODEL_FILE)
    table = orjson.loads((tmp_path / "out" / DTYPES_FILE).read_bytes())

    assert (detail["precision"], detail["share_of_flops"], detail["measured_through"]) == (variant, 1.0, "emulation")
    assert detail["calibration_images"] == 32
    assert [row["node"] for row in table] == [node.name for node in made.graph.node]
    assert [tuple(row["dtypes"]) for row in table] == [row.dtypes for row in dtype_table(made)]
    reasons = {row["node"]: row["kept_fp32"] for row in table}
    assert reasons["norm/Sqrt"] == "normalisation"
    assert reasons["stem/Conv"] is None


def test_calibration_images_from_the_test_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="also in split"):
        make_fp16(context(tmp_path, "fp16", are_shared=True))


def test_network_too_large_for_memory_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = classifier()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w4")
    onnx.external_data_helper.set_external_data(weight, "large.data")
    weight.ClearField("raw_data")
    onnx.save(model, tmp_path / MODEL_FILE)
    with (tmp_path / "large.data").open("wb") as file:
        file.truncate(2_000_000_000)  # sparse: takes no space

    with pytest.raises(GraphError, match="leave bf16 out of the recipe's variants"):
        whole_graph(tmp_path / MODEL_FILE, "bf16")
