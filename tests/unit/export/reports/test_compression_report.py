"""What other steps wrote about layers. Promises: absent files are no failure, wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from saccade.export.errors import RecipeError
from saccade.export.reports.compression_report import read_pruning, read_quantized_layers, read_sparsity


def test_steps_that_wrote_nothing_leave_nothing(tmp_path: Path) -> None:
    assert read_sparsity(tmp_path) is None
    assert read_pruning(tmp_path) is None
    assert read_quantized_layers(tmp_path) == ()


def test_sparsity_is_read_and_keys_for_other_readers_are_passed_over(tmp_path: Path) -> None:
    document = {
        "claimed": ["block"],
        "layers": [{"layer": "block", "eligible": True, "kept_magnitude_identity": 0.7, "zeros": [1, 2]}],
        "one_shot": [{"method": "random", "permuted": False, "tuning_metric": 0.3}],
        "recovery": {"history": [{"step": 10, "tuning_metric": 0.8, "flip_rate": 0.01}], "seed": 0},
        "permutation_seconds": 3.5,
    }
    (tmp_path / "sparsity.json").write_bytes(orjson.dumps(document))

    found = read_sparsity(tmp_path)

    assert found is not None
    assert (found.claimed, found.layers[0].kept_magnitude_identity) == (("block",), 0.7)
    assert (found.one_shot[0].permuted, found.recovery.history[0].flip_rate) == (False, 0.01)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"layers": rows}], ids=["list", "document"])
def test_quantized_layers_are_read_from_a_list_or_a_document(tmp_path: Path, wrap: object) -> None:
    rows = [{"layer": "stem", "op": "Conv", "quantized": False, "reason": "first"}]
    assert callable(wrap)
    (tmp_path / "layers.json").write_bytes(orjson.dumps(wrap(rows)))

    found = read_quantized_layers(tmp_path)

    assert [(each.layer, each.quantized, each.reason, each.sensitivity) for each in found] == [
        ("stem", False, "first", None)
    ]


def test_file_of_another_form_is_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "sparsity.json").write_bytes(orjson.dumps({"layers": [{"layer": "block"}]}))

    with pytest.raises(RecipeError, match=r"sparsity\.json: layers\.0\.eligible: .*run the step that wrote it again"):
        read_sparsity(tmp_path)
