"""Networks of transformers. Promises: the library's own scores, boxes and maps; directories read, pickles refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from saccade.export.convert.detection_heads import BoxesHead, CandidatesHead, InstancesHead
from saccade.export.errors import SourceError
from saccade.export.network import Network, NetworkRequest
from saccade.export.sources import transformers_source
from saccade.export.sources.specs import TransformersSource
from saccade.export.sources.transformers_adapters import corners
from saccade.models.contract.instance_masks import mask_windows
from saccade.models.contract.preprocessing import Geometry, preprocess
from saccade.models.contract.specs import MaskSpec, Normalisation, PreprocessSpec, Task
from tests.support.conversion import ConvertedModule

SIDE = 64
CLASSES = 4
VIT = {
    "num_labels": CLASSES,
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
ATTENTION = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "d_model": 16}
DETR = {
    "num_labels": CLASSES,
    "use_timm_backbone": False,
    "backbone": None,
    "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage4"]},
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "num_queries": 6,
    **ATTENTION,
}
RT_DETR = {
    "num_labels": CLASSES,
    "backbone_config": {"model_type": "rt_detr_resnet", **RESNET, "out_features": ["stage2", "stage3", "stage4"]},
    "encoder_in_channels": [8, 16, 16],
    "encoder_hidden_dim": 16,
    "encoder_ffn_dim": 16,
    "decoder_in_channels": [16, 16, 16],
    "decoder_layers": 2,
    "num_queries": 6,
    **ATTENTION,
}
MASK2FORMER = {
    "num_labels": CLASSES,
    "backbone_config": {
        "model_type": "swin",
        "image_size": SIDE,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 16,
    "num_queries": 6,
}
HIERA = {  # its attention has five dimensions: batch, heads, units, places, features
    "num_labels": CLASSES,
    "image_size": [SIDE, SIDE],
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 16, 16, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
}
D_FINE = {**RT_DETR, "backbone_config": HGNET, "encoder_in_channels": [16, 16, 16]}
NETWORKS: dict[str, tuple[Task, dict[str, Any]]] = {
    "vit": (Task.CLASSIFY, VIT),
    "hiera": (Task.CLASSIFY, HIERA),
    "data2vec-vision": (Task.CLASSIFY, VIT),  # of a model type that also segments: the task is said
    "d_fine": (Task.DETECT, D_FINE),
    "detr": (Task.DETECT, DETR),
    "rt_detr_v2": (Task.DETECT, RT_DETR),
    "mask2former": (Task.SEGMENT, MASK2FORMER),
}


def source_of(name: str) -> TransformersSource:
    task, arguments = NETWORKS[name]
    return TransformersSource(kind="transformers", name=name, task=task, arguments=arguments)


def request(source: TransformersSource, weights: Path | None = None, **changes: Any) -> NetworkRequest:
    facts = transformers_source.facts(source, weights)
    assert facts.task is not None
    assert facts.labels is not None
    pixels = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
    values = {"classes": len(facts.labels), "preprocess": pixels, "normalisation": Normalisation()} | changes
    return NetworkRequest(source, weights, facts.task, **values)


@cache
def network_of(name: str) -> Network:
    """With weights large enough to tell one place from another."""
    return with_large_weights(transformers_source.load(request(source_of(name))))


def with_large_weights(network: Network) -> Network:
    generator = torch.Generator().manual_seed(1)
    for module in network.module.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
    return network


def images_of(count: int) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


def model_of(network: Network) -> Any:
    return network.module.get_submodule("model")


def test_classifier_gives_the_library_s_logits() -> None:
    network = network_of("vit")

    assert network.form == "logits"
    assert torch.equal(network.module(images_of(2)), model_of(network)(images_of(2)).logits)


def test_detr_answers_as_its_image_processor_with_bars_and_pixel_mask() -> None:
    network = network_of("detr")
    inside = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    inside[0, :48, :], inside[1, :, :40] = True, True
    images = images_of(2) * inside.unsqueeze(1)

    boxes, scores, class_ids, counts = CandidatesHead(6, CLASSES)(network.module(images, inside))

    outputs = model_of(network)(images, pixel_mask=inside.long())
    expected = transformers.DetrImageProcessor().post_process_object_detection(
        outputs, threshold=0.001, target_sizes=[(48, SIDE), (SIDE, 40)]
    )
    for row, detections in enumerate(expected):
        order = detections["scores"].argsort(descending=True)
        found = int(counts[row])
        assert found == len(order) == 6
        assert torch.allclose(scores[row, :found], detections["scores"][order])
        assert torch.allclose(boxes[row, :found], detections["boxes"][order], atol=1e-3)
        assert torch.equal(class_ids[row, :found].long(), detections["labels"][order])


def test_rt_detr_answers_as_its_image_processor() -> None:
    network = network_of("rt_detr_v2")

    boxes, scores, class_ids, _ = BoxesHead(6)(network.module(images_of(2)))

    expected = transformers.RTDetrImageProcessor().post_process_object_detection(
        model_of(network)(images_of(2)), threshold=0.0, target_sizes=[(SIDE, SIDE)] * 2
    )
    for row, detections in enumerate(expected):
        assert torch.allclose(scores[row], detections["scores"], rtol=1e-4)
        assert torch.allclose(boxes[row], detections["boxes"], atol=1e-2)
        assert torch.equal(class_ids[row].long(), detections["labels"])


def test_quadrilaterals_are_answered_by_the_box_around_them() -> None:
    shares = torch.rand(2, 5, 10, generator=torch.Generator().manual_seed(3))
    points = transformers.PPDocLayoutV4ImageProcessor()._quad_to_corners(shares)

    assert torch.allclose(corners(shares), torch.cat([points.amin(2), points.amax(2)], 2), atol=1e-6)


def test_classifier_whose_logits_have_another_name_is_read() -> None:
    source = TransformersSource(kind="transformers", name="pp_lcnet", arguments={"num_labels": CLASSES, "scale": 0.25})
    network = transformers_source.load(request(source))

    assert torch.equal(network.module(images_of(1)), model_of(network)(images_of(1)).last_hidden_state)
    assert network.module(images_of(1)).shape == (1, CLASSES)


def test_mask2former_gives_the_library_s_semantic_map() -> None:
    network = network_of("mask2former")

    found = network.module(images_of(2)).argmax(dim=1)

    outputs = model_of(network)(images_of(2))
    expected = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation(outputs)
    assert len(found.unique()) > 1
    # Both sum the same products in another order, so an exact tie may fall either way.
    assert all((row != each).float().mean() < 1e-3 for row, each in zip(found, expected, strict=True))


def test_mask2former_gives_the_library_s_objects() -> None:
    source = TransformersSource(kind="transformers", name="mask2former", task=Task.INSTANCES, arguments=MASK2FORMER)
    asked = request(source)
    masks = MaskSpec(form="queries", channels=6, height=SIDE // 4, width=SIDE // 4)
    assert asked.task.masks is not None
    assert (asked.task.max_detections, asked.task.masks.form, asked.task.masks.channels) == (6, "queries", 6)
    network = with_large_weights(transformers_source.load(asked))
    images = images_of(2)

    raw = network.module(images)
    answer = [tensor.numpy() for tensor in InstancesHead(5, 6, CLASSES)(raw)]

    outputs = model_of(network)(images)
    expected = transformers.Mask2FormerImageProcessor().post_process_instance_segmentation(
        outputs, threshold=0.002, target_sizes=[(384, 384)] * 2, return_binary_maps=True
    )
    large = Geometry(384, 384, 0, 0, SIDE, SIDE)
    for row, each in enumerate(expected):
        infos = each["segments_info"]
        order = sorted(range(len(infos)), key=lambda index: -infos[index]["score"])
        found = int((answer[1][row] >= 0.002).sum())
        assert found == len(infos) >= 3
        np.testing.assert_allclose(answer[1][row, :found], [infos[index]["score"] for index in order], atol=1e-4)
        assert answer[2][row, :found].tolist() == [infos[index]["label_id"] for index in order]
        windows = mask_windows([array[row] for array in answer], np.arange(found), masks, (SIDE, SIDE), large)
        for window, index, box in zip(windows, order, answer[0][row], strict=False):
            mask = each["segmentation"][index].numpy() > 0
            # The library enlarges to 384 pixels; here a pixel shows what lies at the centre of one of the network's 64.
            assert (window.whole(384, 384) & mask).sum() >= 0.85 * (window.whole(384, 384) | mask).sum()
            lines, columns = np.nonzero(mask)
            edges = np.array([columns.min(), lines.min(), columns.max() + 1, lines.max() + 1])
            np.testing.assert_allclose(box * (384 / SIDE), edges, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_converted_network_answers_as_eager_at_any_batch(name: str) -> None:
    network = network_of(name)
    converted = ConvertedModule(network.module, (images_of(2),))

    for count in (1, 3):
        raw = network.module(images_of(count))
        expected = raw if isinstance(raw, tuple) else (raw,)
        for found, tensor in zip(converted(images_of(count)), expected, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A checkpoint as transformers saves it."""
    torch.manual_seed(0)
    labels = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
    config = transformers.ViTConfig(**VIT, id2label=labels)  # type: ignore[arg-type]  # keys of several types
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}, resample=3).save_pretrained(tmp_path)
    return tmp_path


def test_directory_says_everything(directory: Path) -> None:
    source = TransformersSource(kind="transformers")

    facts = transformers_source.facts(source, directory)
    network = transformers_source.load(request(source, directory))

    assert facts.labels == ("cat", "dog", "owl", "fox")
    assert facts.preprocess == PreprocessSpec(width=SIDE, height=SIDE, fit="stretch", resample="bicubic")
    assert facts.normalisation == Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    library = transformers.ViTForImageClassification.from_pretrained(directory).eval()
    assert torch.allclose(network.module(images_of(2)), library(images_of(2)).logits, atol=1e-6)


def test_wrapped_timm_network_is_read_as_timm_s_own(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("timm_wrapper", architecture="test_convnext", num_labels=CLASSES)
    torch.manual_seed(0)
    library = transformers.TimmWrapperForImageClassification._from_config(config).eval()
    library.save_pretrained(tmp_path)
    source = TransformersSource(kind="transformers")

    facts = transformers_source.facts(source, tmp_path)
    network = transformers_source.load(request(source, tmp_path))

    assert facts.preprocess is not None
    assert (facts.preprocess.width, facts.preprocess.fit) == (160, "crop")
    assert torch.allclose(network.module(images_of(2)), library(images_of(2)).logits, atol=1e-5)


def test_features_are_what_the_classifier_reads(directory: Path) -> None:
    source = TransformersSource(kind="transformers")

    network = transformers_source.load(request(source, directory, extra_outputs=("features",)))

    logits, features = network.module(images_of(2))
    assert network.extra_outputs == ("features",)
    assert torch.allclose(network.module.get_submodule("network.model.classifier")(features), logits)


def test_pickle_is_refused_with_how_to_convert(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")

    with pytest.raises(SourceError, match=r"can run code.*save_pretrained"):
        transformers_source.load(request(TransformersSource(kind="transformers"), directory))


def test_remote_code_is_never_run(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "their_own", "auto_map": {"AutoConfig": "code.TheirConfig"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "code.py").write_text("raise SystemExit('ran')")

    with pytest.raises(SourceError, match="never run"):
        transformers_source.facts(TransformersSource(kind="transformers"), directory)


def test_weights_of_another_shape_are_refused(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))

    with pytest.raises(SourceError, match="do not fit ViTForImageClassification"):
        transformers_source.load(request(TransformersSource(kind="transformers"), directory))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"name": "segfomer"}, "did you mean segformer"),
        ({"name": "bert"}, "transformers has no bert network"),
        ({"name": "segformer"}, "set source.task to classify or segment"),
        ({"name": "vit", "task": "detect"}, "no vit network for detect"),
        ({}, "name a directory"),
        ({"name": "vit", "arguments": {"hidden_size": "wide"}}, "source.arguments do not fit vit"),
    ],
)
def test_source_that_does_not_fit_is_named(source: dict[str, Any], text: str) -> None:
    with pytest.raises(SourceError, match=text):
        transformers_source.facts(TransformersSource(kind="transformers", **source), None)


@pytest.mark.parametrize(
    "model_type",
    [
        *("vit", "deit", "levit", "convnext", "mobilevit", "efficientnet", "poolformer", "pp_lcnet", "detr", "yolos"),
        *("pp_doclayout_v4", "rf_detr"),
    ],
)
def test_server_preprocessing_is_that_of_the_image_processor(model_type: str) -> None:
    source = TransformersSource(kind="transformers", name=model_type, task=None)
    if model_type in ("mobilevit", "detr"):
        source = source.model_copy(update={"task": Task.CLASSIFY if model_type == "mobilevit" else Task.DETECT})
    facts = transformers_source.facts(source, None)
    assert facts.preprocess is not None
    assert facts.normalisation is not None
    assert facts.labels is not None
    values = {"preprocess": facts.preprocess, "normalisation": facts.normalisation}
    transform = transformers_source.library_transform(request(source, **values))
    coarse = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    image = Image.fromarray(coarse).resize((333, 251), Image.Resampling.BICUBIC)

    assert transform is not None
    expected = transform(image).transpose(1, 2, 0)
    pixels = preprocess(np.asarray(image), facts.preprocess)[: expected.shape[0], : expected.shape[1]]

    mean, std = np.array(facts.normalisation.mean), np.array(facts.normalisation.std)
    levels = np.abs((pixels / 255.0 - mean) / std - expected) * std * 255
    assert (levels <= 1.01).mean() >= 0.999
