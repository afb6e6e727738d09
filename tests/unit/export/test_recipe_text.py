"""Recipes as text. Promises: an update replaces what `init` wrote, and keeps every line of the user."""

from __future__ import annotations

from saccade.export.cli.recipe_text import line, updated

TEXT = """# my detector
source: onnx
weights: old.onnx  # of May
# the test set
data: pictures
outputs: {layout: yolov5}  # found by running it
value_range: [0.0, 1.0]  # assumed: what black and white become
variants:
  - fp32
  - fp16
"""


def test_own_lines_are_replaced_and_the_user_s_stay() -> None:
    lines = {"weights": line("weights", "new.onnx"), "outputs": line("outputs", {"layout": "yolov8"}, "assumed: all")}

    new = updated(TEXT, lines, frozenset({"outputs", "variants"}))

    assert new == TEXT.replace("old.onnx  # of May", "new.onnx").replace(
        "{layout: yolov5}  # found by running it", "{layout: yolov8}  # assumed: all"
    ).replace("value_range: [0.0, 1.0]  # assumed: what black and white become\n", "")


def test_word_that_the_user_confirmed_is_kept() -> None:
    confirmed = "source: onnx\noutputs: {layout: yolov5}\n"

    new = updated(confirmed, {"outputs": line("outputs", {"layout": "yolov8"}, "assumed: all")}, frozenset({"outputs"}))

    assert new == confirmed
