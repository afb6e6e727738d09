"""Which networks the matrix takes. Promises: one entry per network, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.models.contract.specs import Task
from tests.matrix import trained
from tests.matrix.trained import TrainedFile

Sections = Mapping[str, Any]
_OUR_MODULES = re.compile(r"module/(?:saccade\.models|tests\.matrix)\.networks\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row. Class counts follow from the data (digit scenes) and are not written here."""

    family: str  # the papers that it comes from, as the table shows it
    source: str  # as in a recipe
    task: Task = Task.CLASSIFY
    arguments: Sections = field(default_factory=dict)  # of the source, besides the number of classes
    task_words: Sections = field(default_factory=dict)  # of the recipe's `task`, where the source does not say them
    preprocess: Sections = field(default_factory=dict)  # where the library's own size is needlessly heavy
    saved_from: str = ""  # source whose network is saved as the .onnx or .pt2 file of this one
    trained: TrainedFile | None = None  # file of a package that is this one's
    plan_size: tuple[int, int] | None = None  # width, height of the plan, where it differs from the parity's
    is_representative: bool = False  # one of those that CI runs
    time_limit_s: float = 900.0

    @property
    def id(self) -> str:
        """`timm-resnet50`; also the model's name in the repository."""
        name = f"{self.source}-{self.saved_from}" if self.saved_from else self.source
        # The same network may also be a row of another task.
        name += {Task.INSTANCES: "-instances", Task.EMBED: "-embed", Task.IMAGE: "-image"}.get(self.task, "")
        slug = _OUR_MODULES.sub("ours-", name.lower()).replace("/", "-").replace(":", "-")
        return slug.replace("_", "-")


def _timm(family: str, *names: str, **more: Any) -> list[Entry]:
    return [Entry(family=family, source=f"timm/{name}", **more) for name in names]


def _torchvision(family: str, *names: str, **more: Any) -> list[Entry]:
    return [Entry(family=family, source=f"torchvision/{name}", **more) for name in names]


def _transformers(family: str, name: str, **more: Any) -> Entry:
    return Entry(family=family, source=f"transformers/{name}", **more)


def _ours(family: str, factory: str, **more: Any) -> Entry:
    return Entry(family=family, source=f"module/{factory}", **more)


def _square(side: int) -> Sections:
    return {"width": side, "height": side, "fit": "stretch"}


def _boxed(side: int) -> Sections:
    return {"width": side, "height": side, "shortest_edge": side, "longest_edge": side}


# Untrained scores crowd around the 300th best anchor: which one is the last query would be decided by rounding.
_FEW_QUERIES: Sections = {"num_queries": 100}
_BOXES_AT_320: dict[str, Any] = {"task": Task.DETECT, "preprocess": _boxed(320), "time_limit_s": 1200.0}
_DETR_AT_320: dict[str, Any] = {"task": Task.DETECT, "preprocess": _square(320), "time_limit_s": 1200.0}

_RESNET = "ResNet, Wide ResNet, Identity Mappings"
_DENSE = "DenseNet, DenseNets Reloaded"
_INCEPTION = "Inception v3, v4, ResNet-v2"
_MOBILE = "MobileNet v1, v2"
_WINDOWS = "DaViT, Swin"
_VITS = "DeiT, CaiT, ConViT, CvT, CoAtNet"
_MIXERS = "MLP-Mixer, Sequencer"
_EFFICIENT = "EfficientNet, CondConv"
_BOXES = "SSD, Faster R-CNN"
_DETR = "DETR family"
_DENSE_HEADS = "DPT, Mask2Former, SegFormer, UPerNet"
_REPARAM = "Reparametrisation"

_CLASSIFIERS: tuple[Entry, ...] = (
    *_torchvision(_RESNET, "resnet18", is_representative=True),
    *_timm(_RESNET, "resnet50", "wide_resnet50_2", "resnetv2_50x1_bit"),
    *_torchvision("VGG", "vgg16"),
    *_timm(_DENSE, "densenet121"),
    *_timm(_DENSE, "rdnet_tiny"),
    *_timm(_INCEPTION, "inception_v3", "inception_v4", "inception_resnet_v2"),
    *_timm("NASNet, PNASNet", "nasnetalarge", "pnasnet5large", time_limit_s=1500.0),
    *_timm(_MOBILE, "mobilenetv1_100"),
    *_timm(_MOBILE, "mobilenetv2_100"),
    *_timm(_MOBILE, "mobilenetv3_large_100"),
    *_torchvision(_MOBILE, "mobilenet_v2"),
    *_timm("ConvNeXt, InceptionNeXt", "convnext_tiny", "inception_next_tiny"),
    *_torchvision("ConvNeXt, InceptionNeXt", "convnext_tiny"),
    *_timm(_WINDOWS, "davit_tiny", "swin_tiny_patch4_window7_224"),
    *_torchvision(_WINDOWS, "swin_t", is_representative=True),
    *_timm("LeViT", "levit_128s", is_representative=True),
    _transformers("LeViT", "levit"),
    *_timm(_VITS, "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "cait_xxs24_224", "convit_tiny"),
    *_timm(_VITS, "coatnet_0_rw_224"),
    _transformers(_VITS, "cvt", preprocess=_square(224)),
    _transformers(_VITS, "vit", arguments={"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}),
    *_timm("VOLO", "volo_d1_224"),
    *_timm(_MIXERS, "mixer_s32_224", "mixer_b16_224"),
    *_timm(_MIXERS, "sequencer2d_s"),
    *_timm(_EFFICIENT, "efficientnet_b0"),
    *_timm(_EFFICIENT, "tf_efficientnet_cc_b0_4e", is_representative=True),
    *_timm(_REPARAM, "mobileone_s0", "repvit_m1", "starnet_s1"),
    _transformers(_MOBILE, "mobilevit", task=Task.CLASSIFY),
)

_DETECTORS: tuple[Entry, ...] = (
    *_torchvision(_BOXES, "ssd300_vgg16", task=Task.DETECT),
    *_torchvision(_BOXES, "ssdlite320_mobilenet_v3_large", task=Task.DETECT, is_representative=True),
    *_torchvision(
        _BOXES,
        "retinanet_resnet50_fpn",
        "fcos_resnet50_fpn",
        "fasterrcnn_resnet50_fpn",
        **_BOXES_AT_320,
    ),
    *_torchvision(_BOXES, "fasterrcnn_mobilenet_v3_large_320_fpn", task=Task.DETECT, preprocess=_boxed(320)),
    _transformers(_DETR, "detr", task=Task.DETECT, preprocess=_boxed(320)),
    _transformers(_DETR, "rt_detr", arguments=_FEW_QUERIES, **_DETR_AT_320),
    _transformers(_DETR, "rt_detr_v2", arguments=_FEW_QUERIES, **_DETR_AT_320),
    _transformers(
        _DETR,
        "yolos",
        task=Task.DETECT,
        arguments={
            "hidden_size": 192,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "image_size": [256, 256],
            "use_mid_position_embeddings": False,
        },
        preprocess=_boxed(256),
        is_representative=True,
    ),
)

_SEGMENTERS: tuple[Entry, ...] = (
    *_torchvision(
        "FCN, DeepLabV3",
        "fcn_resnet50",
        "deeplabv3_mobilenet_v3_large",
        task=Task.SEGMENT,
        preprocess={"width": 256, "height": 256},
    ),
    *_torchvision(
        _MOBILE,
        "lraspp_mobilenet_v3_large",
        task=Task.SEGMENT,
        preprocess={"width": 256, "height": 256},
        is_representative=True,
    ),
    _transformers(_DENSE_HEADS, "segformer", task=Task.SEGMENT, preprocess=_square(256), is_representative=True),
    _transformers(_DENSE_HEADS, "dpt", task=Task.SEGMENT, arguments={"image_size": 224}, preprocess=_square(224)),
    _transformers(_DENSE_HEADS, "upernet", task=Task.SEGMENT, preprocess=_square(256)),
    _transformers(_DENSE_HEADS, "mask2former", task=Task.SEGMENT, preprocess=_square(256), time_limit_s=1200.0),
)

_INSTANCES: tuple[Entry, ...] = (
    *_torchvision(
        "Mask R-CNN",
        "maskrcnn_resnet50_fpn",
        task=Task.INSTANCES,
        preprocess=_boxed(320),
        time_limit_s=1800.0,
    ),
    _transformers(_DENSE_HEADS, "mask2former", task=Task.INSTANCES, preprocess=_square(256), time_limit_s=1800.0),
)

# CLIP and its like in the sizes of small networks; their text side takes no part.
_SMALL_SIDE: Sections = {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 3, "num_hidden_layers": 4}
_SMALL_SIDES: Sections = {
    "text_config": {**_SMALL_SIDE, "vocab_size": 1000},
    "vision_config": {**_SMALL_SIDE, "image_size": 224, "patch_size": 16},
}
_EMBEDDERS: tuple[Entry, ...] = (
    *_timm("Embedders", "vit_tiny_patch16_224", "resnet18", "mobilenetv3_small_050", task=Task.EMBED),
    *_torchvision("Embedders", "resnet18", task=Task.EMBED, is_representative=True),
    *_torchvision("Embedders", "mobilenet_v3_small", task=Task.EMBED),
    _transformers("Embedders", "clip", task=Task.EMBED, arguments={**_SMALL_SIDES, "projection_dim": 128}),
    _transformers("Embedders", "siglip", task=Task.EMBED, arguments=_SMALL_SIDES),
    _transformers("Embedders", "dinov2", task=Task.EMBED, arguments={"hidden_size": 192, "num_attention_heads": 3}),
    _transformers("Embedders", "resnet", task=Task.EMBED, preprocess=_square(224)),
)

# Depth and enlargement in the sizes of small networks.
_SMALL_DEPTH: Sections = {"neck_hidden_sizes": [24, 48, 96, 192], "fusion_hidden_size": 64}
_STAGES: Sections = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
_PICTURES: tuple[Entry, ...] = (
    _transformers(
        "Pictures",
        "dpt",
        task=Task.IMAGE,
        arguments={**_SMALL_SIDE, **_SMALL_DEPTH, "image_size": 224, "backbone_out_indices": [0, 1, 2, 3]},
        preprocess=_square(224),
    ),
    _transformers(
        "Pictures",
        "depth_anything",
        task=Task.IMAGE,
        arguments={
            **_SMALL_DEPTH,
            "backbone_config": {
                **{"model_type": "dinov2", "hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 4},
                **{"image_size": 224, "patch_size": 14, **_STAGES},
            },
            "reassemble_hidden_size": 192,
        },
        preprocess=_square(224),
    ),
    _transformers(
        "Pictures",
        "swin2sr",
        task=Task.IMAGE,
        arguments={
            **{"image_size": 128, "embed_dim": 48, "depths": [2, 2], "num_heads": [3, 3], "window_size": 8},
            **{"upscale": 2, "upsampler": "pixelshuffledirect"},
        },
        preprocess={"width": 128, "height": 128, "fit": "tile"},
        is_representative=True,
    ),
    _transformers("Pictures", "glpn", task=Task.IMAGE, preprocess=_square(224)),
    _ours(
        "Pictures",
        "saccade.models.networks.restoration:denoiser",
        task=Task.IMAGE,
        task_words={"picture": "rgb"},
        preprocess={"width": 256, "height": 256, "fit": "tile"},
    ),
    _ours(
        "Pictures",
        "saccade.models.networks.restoration:super_resolution",
        task=Task.IMAGE,
        task_words={"picture": "rgb", "scale": 2},
        preprocess={"width": 128, "height": 128, "fit": "tile"},
    ),
    _ours(
        "Pictures",
        "tests.matrix.networks.fast_style:fast_style",
        task=Task.IMAGE,
        task_words={"picture": "rgb", "values": [0, 255]},
        preprocess=_square(128),
    ),
)

_OURS: tuple[Entry, ...] = (
    _ours("ResNet-style classifier", "saccade.models.networks.resnet:digits_classifier", preprocess=_square(64)),
    _ours(
        "YOLOv10-style detector",
        "saccade.models.networks.yolov10:yolov10_s",
        task=Task.DETECT,
        arguments={"classes": 10, "image_size": 640},
        preprocess={"width": 640, "height": 640, "fit": "letterbox"},
    ),
    _ours(
        "DDRNet-23-slim segmenter",
        "saccade.models.networks.ddrnet:ddrnet23_slim",
        task=Task.SEGMENT,
        arguments={"classes": 11},
        preprocess={"width": 512, "height": 256, "fit": "letterbox"},
        plan_size=(2048, 1024),
    ),
    _ours("UniRepLKNet block", "tests.matrix.networks.unireplknet:digits_unireplknet", preprocess=_square(64)),
    _ours("EViT on a timm DeiT", "tests.matrix.networks.evit:evit_deit_tiny", preprocess=_square(224)),
)

_FILES: tuple[Entry, ...] = (
    Entry(
        family="Files",
        source="onnx",
        saved_from="timm/mobilenetv3_small_050",
        preprocess=_square(224),
        is_representative=True,
    ),
    Entry(
        family="Files",
        source="pt2",
        saved_from="timm/mobilenetv3_small_050",
        preprocess=_square(224),
        is_representative=True,
    ),
)


def _trained(file: TrainedFile, task: Task, size: tuple[int, int], **more: Any) -> Entry:
    sections = {"width": size[0], "height": size[1], **more}
    origin = f"{file.package.strip('@').partition('/')[0]}/{file.name}"
    return Entry(
        family="Trained by others",
        source="onnx",
        task=task,
        trained=file,
        saved_from=origin,
        preprocess=sections,
        time_limit_s=1800.0,
    )


_OPENCV = {"resample": "opencv", "antialias": False, "channel_order": "bgr"}
_TRAINED: tuple[Entry, ...] = (
    _trained(trained.TEXT_DETECTOR, Task.SEGMENT, (736, 736), fit="stretch", **_OPENCV),
    _trained(trained.TEXT_DETECTOR_V6, Task.SEGMENT, (736, 736), fit="stretch", **_OPENCV),
    _trained(trained.ORIENTATION, Task.CLASSIFY, (192, 48), fit="letterbox", anchor="top_left", **_OPENCV),
    _trained(trained.PAGE_ORIENTATION, Task.CLASSIFY, (320, 320), fit="letterbox", pad_value=255),
    _trained(trained.OPEN_NSFW, Task.CLASSIFY, (224, 224), fit="crop", resize_to=[256, 256], channel_order="bgr"),
    _trained(trained.ISNET, Task.SEGMENT, (1024, 1024), fit="stretch"),
    _trained(trained.TURNED_PAGE, Task.CLASSIFY, (224, 224), fit="crop", shortest_edge=256, channel_order="bgr"),
    _trained(trained.TUMOR, Task.CLASSIFY, (240, 240), fit="stretch", resample="bicubic"),
    _trained(trained.CAPTCHA_DETECTOR, Task.DETECT, (416, 416)),  # the rest is known by its kind
    _trained(
        trained.BODY_PARTS,
        Task.DETECT,
        (320, 320),
        fit="letterbox",
        anchor="top_left",
        pad_value=0,
        channel_order="bgr",  # its own code swaps red and blue twice
        **{"resample": "opencv", "antialias": False},
    ),
)

# Drawn at random by `draw.py` (seed 14) and written down before any of them was run.
_BY_LOT = "Drawn at random"
DRAWN: tuple[Entry, ...] = (
    *_torchvision(_BY_LOT, "efficientnet_v2_s", "regnet_y_8gf", "maxvit_t", "resnet101"),
    *_torchvision(_BY_LOT, "fasterrcnn_resnet50_fpn_v2", **_BOXES_AT_320),
    *_timm(_BY_LOT, "dla60_res2next", "lcnetv2_large", "lowformer_b1", "res2net50_26w_4s", "efficientformer_l1"),
    *_timm(_BY_LOT, "vit_pe_core_tiny_patch16_384", "nextvit_small", "test_efficientnet_ln"),
    *(_transformers(_BY_LOT, name) for name in ("pp_lcnet", "hiera", "timm_wrapper", "pvt", "mobilenet_v1")),
    _transformers(_BY_LOT, "pp_doclayout_v4", arguments=_FEW_QUERIES, **_DETR_AT_320),
    _transformers(
        _BY_LOT,
        "rf_detr",
        task=Task.DETECT,
        arguments=_FEW_QUERIES,
        preprocess=_square(336),
        time_limit_s=1200.0,
    ),
)

ENTRIES: tuple[Entry, ...] = (
    *(*_CLASSIFIERS, *_DETECTORS, *_SEGMENTERS, *_INSTANCES, *_EMBEDDERS, *_PICTURES),
    *(*_OURS, *_FILES, *_TRAINED, *DRAWN),
)


def entry_of(entry_id: str) -> Entry:
    """Raises KeyError for an id that is not in the matrix."""
    return {entry.id: entry for entry in ENTRIES}[entry_id]
