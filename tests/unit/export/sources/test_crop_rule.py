"""A recipe that changes the size only. Promises: the crop keeps its share, and whatever is given stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from saccade.export.recipe import Recipe, load_recipe


def recipe(tmp_path: Path, source: str, **sections: Any) -> Recipe:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"source": source, "data": "pictures", **sections}))
    return load_recipe(tmp_path / "r.yaml").recipe


@pytest.mark.parametrize(
    ("source", "given", "field", "value"),
    [
        ("timm/resnet50", {"width": 288, "height": 288}, "shortest_edge", 303),  # floor(288 / 0.95)
        ("timm/resnet50", {"width": 320, "height": 256}, "cover", (336, 269)),
        ("torchvision/resnet50", {"width": 112, "height": 112}, "shortest_edge", 116),
        ("timm/resnet50", {"width": 288, "height": 288, "shortest_edge": 320}, "shortest_edge", 320),
        ("timm/resnet50", {"resample": "bilinear"}, "shortest_edge", 235),
    ],
)
def test_crop_follows_the_size(
    tmp_path: Path, source: str, given: dict[str, Any], field: str, value: int | tuple[int, int]
) -> None:
    assert getattr(recipe(tmp_path, source, preprocess=given).preprocess, field) == value


def test_other_resize_rule_starts_afresh(tmp_path: Path) -> None:
    spec = recipe(tmp_path, "timm/resnet50", preprocess={"fit": "letterbox", "width": 96}).preprocess

    assert (spec.fit, spec.width, spec.height, spec.shortest_edge) == ("letterbox", 96, 224, None)


def test_three_labels_give_three_answers(tmp_path: Path) -> None:
    labels = ["cat", "dog", "owl"]

    assert recipe(tmp_path, "timm/resnet18", labels=labels).task.top_k == 3
    assert recipe(tmp_path, "timm/resnet18", labels=labels, task={"top_k": 1}).task.top_k == 1
