"""Names of networks. Promises: what is listed can be named, and a miss is answered with the nearest."""

from __future__ import annotations

import pytest

from saccade.export.sources.catalogue import matching_names
from saccade.export.sources.names import generic_labels, near_names, unknown_name


def test_pattern_is_looked_for_anywhere() -> None:
    found = matching_names("deit_tiny")

    assert found["timm"] == ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"]
    assert found["torchvision"] == []


def test_pattern_may_carry_the_library() -> None:
    found = matching_names("torchvision/resnet*")

    assert found == {
        "timm": [],
        "torchvision": ["resnet101", "resnet152", "resnet18", "resnet34", "resnet50"],
        "transformers": [],
    }


def test_everything_is_listed_without_a_pattern() -> None:
    found = matching_names(None)

    assert len(found["timm"]) > 1000
    assert {"resnet50", "fcn_resnet50", "ssd300_vgg16", "maskrcnn_resnet50_fpn"} <= set(found["torchvision"])
    assert not {"quantized_resnet50", "r3d_18", "raft_small", "keypointrcnn_resnet50_fpn"} & set(found["torchvision"])
    assert {"vit", "segformer", "detr", "mask2former"} <= set(found["transformers"])


@pytest.mark.parametrize(
    ("name", "first"), [("resnt50", "resnet50"), ("RESNET50", "resnet50"), ("mobilenetv3", "mobilenetv3_large")]
)
def test_nearest_name_comes_first(name: str, first: str) -> None:
    assert near_names(name, ["vgg16", "mobilenetv3_large", "resnet50", "resnet18"])[0] == first


def test_unknown_name_says_how_to_list() -> None:
    assert str(unknown_name("timm", "resnt50", ["resnet50"])) == (
        "source: timm has no network 'resnt50'; did you mean resnet50? "
        "`saccade-export sources 'resnt*'` lists what there is (1 in timm)"
    )


def test_labels_nobody_named_are_counted() -> None:
    assert generic_labels(2) == ("class 0", "class 1")
