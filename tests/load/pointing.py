"""Does a classifier's explanation point at the class that it answered? Each method, beside chance.

    python -m tests.load.pointing

The reference classifier's weights are converted for larger pictures: crops as the report has them, a digit of the usual
size anywhere in 96 x 96, and mosaics of 2 x 2 and 3 x 3 crops of different classes, of which one holds what is answered
(grid pointing game, Böhle et al., Convolutional Dynamic Alignment Networks, CVPR 2021). A picture counts where the
answered class is in it, and a hit is a hottest place in that class's box or tile. Last comes deletion (Petsiuk et al.,
RISE, BMVC 2018): the answered class's mean score once the hottest fifth of a picture has its mean colour; lower is
better.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from saccade.export.convert.onnx_from_torch import converted
from saccade.export.convert.onnx_optimization import slim
from saccade.export.convert.trace import traced
from saccade.export.convert.wrap import deployable_network, output_names
from saccade.export.extras.branch_nodes import BranchNodes
from saccade.export.extras.explanation import class_activation, explained, map_branch, principal_component
from saccade.export.extras.feature_maps import FeatureMap, LinearHead, finer_map, linear_head
from saccade.export.extras.graph_view import GraphView
from saccade.export.extras.marks import ExtraBranch, add_branch
from saccade.export.graph.onnx_graph import mark_network_outputs, network_outputs
from saccade.export.qualification.pointing import Boxes, covered, is_hit
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.sources import load_network
from saccade.models.contract.extras import ExtraKind
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task, output_tensors
from saccade.models.digits.backgrounds import background
from saccade.models.digits.digit_scenes import CROP_SIZE, crop_sample, decode_rgb
from saccade.models.digits.digit_sources import Split, digit_instances, instance_indices
from saccade.models.digits.digit_strokes import paint, random_pose, stroke_coverage
from tests.support.server import ROOT

_WIDE = 96  # pixels of a scene: the classifier learned pictures of 64
_DIGIT_PX = (36.0, 54.0)  # as in the pictures that it learned
_SEED = 31  # of the pictures; methods were compared on those of other seeds
_DELETED = 0.2
_BATCH = 50

Images = NDArray[np.uint8]  # (n, side, side, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    pixels: NDArray[np.uint8]
    boxes: Mapping[int, Boxes]  # (1, 4), by the class that lies there


def crop(index: int) -> Picture:
    found = crop_sample(Split.TEST, _SEED, index)
    return Picture(decode_rgb(found.jpeg), {found.class_id: np.array([found.box], np.float32)})


def scene(index: int, side: int = _WIDE) -> Picture:
    """One digit of the test split anywhere in a picture; equal indices give equal pictures."""
    rng = np.random.default_rng((_SEED, index, side))
    pixels = background(rng, side, Split.TEST).copy()
    images, classes = digit_instances()
    chosen = int(rng.choice(instance_indices(Split.TEST)))
    coverage = stroke_coverage(images[chosen], random_pose(rng, float(rng.uniform(*_DIGIT_PX))))[:side, :side]
    height, width = coverage.shape
    left, top = int(rng.integers(0, side - width + 1)), int(rng.integers(0, side - height + 1))
    paint(rng, pixels, coverage, left, top)
    box = np.array([[left, top, left + width, top + height]], np.float32)
    return Picture(pixels, {int(classes[chosen]): box})


def mosaic(index: int, side: int) -> Picture:
    """`side` x `side` crops, each of another class."""
    tiles: dict[int, NDArray[np.uint8]] = {}
    number = index * 1000
    while len(tiles) < side * side:
        found = crop(number)
        (class_id,) = found.boxes
        tiles.setdefault(class_id, found.pixels)
        number += 1
    rows = [np.concatenate(list(tiles.values())[row * side : (row + 1) * side], axis=1) for row in range(side)]
    boxes = {
        class_id: CROP_SIZE * np.array([[place % side, place // side, place % side + 1, place // side + 1]], np.float32)
        for place, class_id in enumerate(tiles)
    }
    return Picture(np.concatenate(rows), boxes)


KINDS: Mapping[str, tuple[int, Callable[[int], Picture]]] = {
    "crops 64 x 64": (CROP_SIZE, crop),
    f"a digit in {_WIDE} x {_WIDE}": (_WIDE, scene),
    "mosaics 2 x 2": (2 * CROP_SIZE, partial(mosaic, side=2)),
    "mosaics 3 x 3": (3 * CROP_SIZE, partial(mosaic, side=3)),
}


def classifier_graph(loaded: LoadedRecipe, folder: Path) -> onnx.ModelProto:
    """The deploy graph of a classifier's recipe, as the exporter makes it for fp32."""
    recipe = loaded.recipe
    with torch.no_grad():
        deployable = deployable_network(load_network(loaded.network_request()), recipe)
        images = torch.zeros((2, recipe.preprocess.height, recipe.preprocess.width, 3), dtype=torch.uint8)
        trace = traced(deployable.module, images, deployable.not_batchable_reason)
    names = list(output_names(recipe, trace.outputs))
    converted(trace.program, names, recipe.onnx.opset, folder / "model.onnx")
    model = slim(onnx.load(folder / "model.onnx"))
    mark_network_outputs(model, names[len(output_tensors(recipe.task, recipe.preprocess)) :])
    return model


def branches(model: onnx.ModelProto, classes: int) -> dict[str, ExtraBranch]:
    """What the exporter adds, first, and the other methods that the graph allows."""
    view = GraphView(model)
    head = linear_head(view, network_outputs(model)[0])
    assert head is not None
    finer = finer_map(view, head.features)
    assert finer is not None
    served = explained(model, Task.CLASSIFY, classes)
    return {
        f"{served.extra.method} (served)": served,
        "class activation": _plain(view, head),
        "principal component, last map": _component(view, head.features),
        "principal component, finer map": _component(view, finer),
    }


def _plain(view: GraphView, head: LinearHead) -> ExtraBranch:
    nodes = BranchNodes(ExtraKind.EXPLAIN, 20)
    return map_branch(nodes, class_activation(view, nodes, head), head.features, "class activation")


def _component(view: GraphView, features: FeatureMap) -> ExtraBranch:
    nodes = BranchNodes(ExtraKind.EXPLAIN, 20)
    return map_branch(nodes, principal_component(view, nodes, features), features, "principal component")


class Explained:
    """A graph with one branch, in ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto, branch: ExtraBranch) -> None:
        asked = onnx.ModelProto()
        asked.CopyFrom(model)
        add_branch(asked, branch)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        content = asked.SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Images) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(n,) the answered classes, (n, rows, columns) the maps."""
        names = ["class_ids", "explanation"]
        parts = [
            self._session.run(names, {"images": images[start : start + _BATCH], "ask_explain": np.array(True)})
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate([part[0][:, 0] for part in parts]), np.concatenate([part[1] for part in parts])

    def scores(self, images: Images, class_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """(n,) the score of a class of each image; 0 where it is not among the best."""
        parts = [
            self._session.run(["scores", "class_ids"], {"images": images[start : start + _BATCH]})
            for start in range(0, len(images), _BATCH)
        ]
        found, named = (np.concatenate(each) for each in zip(*parts, strict=True))
        scores: NDArray[np.float32] = (found * (named == class_ids[:, None])).sum(1)
        return scores


def hits(heats: NDArray[np.float32], boxes: Sequence[Boxes], side: int) -> NDArray[np.bool_]:
    place = Geometry(side, side, 0, 0, side, side)
    return np.array([is_hit(heat, place, (side, side), box) for heat, box in zip(heats, boxes, strict=True)])


def without_hottest(image: NDArray[np.uint8], heat: NDArray[np.float32], share: float) -> NDArray[np.uint8]:
    """The picture with its mean colour where the map, enlarged smoothly, is hottest."""
    side = image.shape[0]
    large = np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR))
    hottest = np.argsort(large.ravel(), kind="stable")[::-1][: round(share * large.size)]
    deleted = image.copy()
    deleted.reshape(-1, 3)[hottest] = image.mean((0, 1))
    return deleted


def compared(kind: str, count: int, loaded: LoadedRecipe) -> None:
    """Prints the figures of one kind of pictures."""
    side, make = KINDS[kind]
    pictures = [make(index) for index in range(count)]
    images = np.stack([each.pixels for each in pictures])
    preprocess = loaded.recipe.preprocess.model_copy(update={"width": side, "height": side})
    sized = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"preprocess": preprocess})})
    with tempfile.TemporaryDirectory() as name:
        model = classifier_graph(sized, Path(name))
    for number, (method, branch) in enumerate(branches(model, len(loaded.recipe.labels)).items()):
        run = Explained(model, branch)
        class_ids, heats = run(images)
        counted = [row for row, class_id in enumerate(class_ids) if int(class_id) in pictures[row].boxes]
        boxes = [pictures[row].boxes[int(class_ids[row])] for row in counted]
        place = Geometry(side, side, 0, 0, side, side)
        chance = float(np.mean([covered(place, box) for box in boxes]))
        if number == 0:
            whole = run.scores(images[counted], class_ids[counted]).mean()
            print(
                f"{kind}: {len(counted)} of {count} answered what is there, mean score {whole:.3f}; chance {chance:.3f}"
            )
        share = float(hits(heats[counted], boxes, side).mean())
        error = 1.96 * (share * (1 - share) / len(counted)) ** 0.5
        deleted = np.stack([without_hottest(images[row], heats[row], _DELETED) for row in counted])
        left = run.scores(deleted, class_ids[counted]).mean()
        print(f"  {method:36} hits {share:.3f} ± {error:.3f}, {share / chance:.1f} times chance; deletion {left:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200, help="of each kind")
    parser.add_argument("--kind", choices=KINDS, action="append", help="of pictures; all by default")
    given = parser.parse_args()
    loaded = load_recipe(ROOT / "models" / "recipes" / "digits-classifier.yaml")
    for kind in given.kind or KINDS:
        compared(kind, given.pictures, loaded)


if __name__ == "__main__":
    main()
