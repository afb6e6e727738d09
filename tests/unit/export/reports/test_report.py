"""Reports. Promises: every table in every form, nothing fetched, nothing unescaped, equal bytes for equal figures."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

from saccade.export.errors import RecipeError
from saccade.export.gate.limits import GateThresholds
from saccade.export.qualification.picture_figures import PictureFigure
from saccade.export.qualification.qualify_report import MetricDrop, ReferenceFigure
from saccade.export.reports.export_report import ExportReport, VariantReport, read_report
from saccade.export.reports.html_report import html
from saccade.export.reports.plots import drawers_of
from saccade.export.reports.report_files import markdown, pictures_beside, write_report
from saccade.export.reports.sections import sections_of
from saccade.export.reports.sections.blocks import Cell, Table
from saccade.export.reports.sections.verdicts import reason, verdict
from saccade.models.contract.manifest import MetricFigure, OperatingPoint
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.models.contract.specs import Task
from tests.support.reports import check, decision, pruning, qualified, whole_report
from tests.support.versions import EXPLANATION

PICTURE = b"\xff\xd8 not really a picture"
VOID = {"meta", "img", "path", "use", "rect", "br"}


class Page(HTMLParser):
    """What a page consists of, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return html(whole_report(), {"int8-cpu-example-1.jpg": PICTURE})


def bare_report(**figures: object) -> ExportReport:
    """One pending variant and nothing that a step may leave out."""
    nothing = {"latency": (), "speed": (), "curves": None, "disagreements": None, "layers": (), "efficiency": None}
    variant = VariantReport(qualify=qualified("fp16", **(nothing | figures)), gate=decision(check("a", "pending")))
    return whole_report(
        variants=(variant,), calibration=(), sparsity=None, forms={}, quantized_layers={}, fidelity=None, folds=()
    )


def tables(report: ExportReport) -> dict[str, Table]:
    return {
        block.title: block for section in sections_of(report) for block in section.blocks if isinstance(block, Table)
    }


def texts(table: Table) -> list[list[str]]:
    return [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]


def test_verdicts_tell_denied_and_pending_apart_with_their_reasons() -> None:
    failed = decision(check("a"), check("b", "pending", "no device"), check("c", "fail", "too far"))
    waiting = decision(check("a"), check("b", "pending", "no device"))

    assert (verdict(failed).tone, reason(failed)) == ("bad", "c: too far")
    assert (verdict(waiting).tone, reason(waiting)) == ("pending", "b: no device")
    assert (verdict(decision(check("a"))).tone, reason(decision(check("a")))) == ("good", "")


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_every_form_holds_every_fact(form: str, page: str) -> None:
    text = markdown(whole_report()) if form == "markdown" else page

    for fact in (
        "denied, not published",
        "pending",
        "needs a plan on its device",
        "saccade-export run recipes/animals.yaml",
        "3" * 64,  # a split
        "d" * 64,  # a step
        qualified("fp32").file_sha256,
        "first layer",
        "31.2",  # sensitivity
        "0.7800 (unpermuted 0.7100)",
        "second_order, permuted",
        "flip rate",
        "0.9000 dense, 0.8800 with 2:4 after recovery. Permuting changed outputs by 3.0e-07.",
        "minmax",
        "0.999900",  # preprocessing
        "2.0e-06",  # conversion
        "batch_norm",
        "TensorRT takes this network: yes",
        "test processor",
        "4.2%",  # of the measured peak
        "61.5",  # FLOPs per byte
        "fp32: no image differs.",
        "Not measured, because the device they are made for is not here: int8-trt-sparse24.",
    ):
        assert fact in text


def test_sparse_layers_are_told_in_the_table_of_sparse_variants_only() -> None:
    found = tables(whole_report())

    assert "sparsity" not in found["fp32: 2 layers"].header
    rows = {row[0]: row for row in texts(found["int8-trt-sparse24: 2 layers"])}
    place = found["int8-trt-sparse24: 2 layers"].header.index("sparsity")
    assert (rows["stem"][place], rows["block"][place]) == ("dense: first layer", "2:4")


def test_the_report_says_whose_map_is_another_one_and_why_there_is_none() -> None:
    larger = EXPLANATION.model_copy(update={"output": EXPLANATION.output.model_copy(update={"shape": (8, 8)})})
    figures = {"fp32": (EXPLANATION,), "bf16-cpu": (EXPLANATION,), "int8-cpu": (larger,), "fp16": ()}
    lacking = {"no_explain": "GPUs compute the answer alone", "no_trust": "the data has 8"}
    variants = [
        VariantReport(
            qualify=qualified(name, extras=extras, detail={} if extras else lacking), gate=decision(check("parity"))
        )
        for name, extras in figures.items()
    ]

    text = markdown(whole_report(variants=tuple(variants)))

    assert "Not served from int8-cpu: its map (" in text
    assert "8 x 8) is another one than that of fp32." in text
    assert text.count("Not served from") == 1
    assert "No explanation, as of fp16: GPUs compute the answer alone." in text
    assert "No score of unfamiliarity, as of fp16: the data has 8." in text


def test_pruned_weights_are_told_with_what_they_cost_and_gained() -> None:
    pair = PairedSpeed(
        against="fp32", device_kind="cpu", ratio=1.2, ci_low=1.1, ci_high=1.3, rounds=9, batch_sizes=(1, 4)
    )
    made = VariantReport(qualify=qualified("fp32-pruned", 0.898, paired_speeds=(pair,)), gate=decision(check("parity")))
    report = whole_report(
        variants=(*whole_report().variants, made), forms={"pruned": {"flop_share": 0.85}}, pruning=pruning()
    )

    text, found = markdown(report), tables(report)

    assert "left 1 of 2 layers: the network keeps 85.0% of its multiply-adds and 80.0% of its parameters" in text
    assert "0.9000 dense, 0.6100 without the channels, 0.8900 after recovery (300 steps on 500 images; " in text
    assert "the weights of step 200 are kept)" in text
    assert texts(found["What the pruned variants lost and gained"]) == [
        ["fp32-pruned", "0.8980", "+0.0020", "+0.0000 to +0.0040", pair.text]
    ]
    assert texts(found["Width of each layer"])[1] == ["block", "16 x 16", "12 x 16"]
    assert "How the pruned weights were made" not in found


def test_confusion_shows_counts_with_heat_by_row() -> None:
    table = tables(whole_report())["fp32: confusion, images"]

    assert texts(table)[1] == ["dog", "2", "8", "0"]
    heats = [cell.heat for cell in table.rows[1] if isinstance(cell, Cell)]
    assert heats == [0.2, 0.8, 0.0]


def test_page_is_whole_and_fetches_nothing(page: str) -> None:
    parsed = Page(page)

    assert parsed.open == []
    assert parsed.tags["script"] == parsed.tags["link"] == parsed.tags["iframe"] == 0
    assert parsed.tags["svg"] == len(drawers_of(whole_report()))
    fetched = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in fetched)
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_of_the_page_are_unique_and_its_links_lead_somewhere(page: str) -> None:
    attributes = Page(page).attributes
    ids = Counter(value for name, value in attributes if name == "id")
    links = {value[1:] for name, value in attributes if name.endswith("href") and value.startswith("#")}
    clips = set(re.findall(r"url\(#([^)]+)\)", page))

    assert [name for name, count in ids.items() if count > 1] == []
    assert (links | clips) - set(ids) == set()


def test_names_from_data_are_escaped_in_the_page(page: str) -> None:
    assert "<b>bird</b>" not in page
    assert "&lt;b&gt;bird&lt;/b&gt;" in page


def test_bars_in_details_do_not_break_markdown_tables() -> None:
    lines = markdown(whole_report()).splitlines()
    broken = [line for line in lines if "too much" in line and line.startswith("|")]

    assert broken
    assert all("lost 0.1 \\| too much" in line for line in broken)


def test_every_markdown_table_has_rows_of_one_length() -> None:
    widths: list[set[int]] = []
    inside = False
    for line in markdown(whole_report()).splitlines():
        if line.startswith("|"):
            if not inside:
                widths.append(set())
            widths[-1].add(len(re.findall(r"(?<!\\)\|", line)))
        inside = line.startswith("|")

    assert len(widths) > 15
    assert all(len(width) == 1 for width in widths)


def test_written_report_reads_back_and_gives_equal_bytes_again(tmp_path: Path) -> None:
    source, first, second = (tmp_path / name for name in ("source", "first", "second"))
    for directory in (source, first, second):
        directory.mkdir()
    (source / "example-1.jpg").write_bytes(PICTURE)

    report = bare_report(disagreements=whole_report().variants[1].qualify.disagreements)

    paths = write_report(report, first, {"fp16-example-1.jpg": source / "example-1.jpg"})
    again = read_report(first / "report.json")
    write_report(again, second, pictures_beside(again, first))

    assert again == report
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in paths}
    assert names == {"report.json", "report.md", "report.html", "fp16-example-1.jpg", "metric.png", "per_class.png"}
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_whole_report_reads_back(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(whole_report().model_dump_json())

    assert read_report(tmp_path / "report.json") == whole_report()


def test_plots_are_of_what_was_measured() -> None:
    whole = {"accuracy_latency", "latency", "metric", "calibrators", "recovery", "per_class"}

    assert set(drawers_of(whole_report())) == whole
    assert set(drawers_of(bare_report())) == {"metric", "per_class"}


def test_report_may_be_written_over_its_own_pictures(tmp_path: Path) -> None:
    (tmp_path / "fp16-example-1.jpg").write_bytes(PICTURE)

    report = bare_report(disagreements=whole_report().variants[1].qualify.disagreements)
    write_report(report, tmp_path, pictures_beside(report, tmp_path))

    assert (tmp_path / "fp16-example-1.jpg").read_bytes() == PICTURE


def test_report_of_an_older_version_still_reads(tmp_path: Path) -> None:
    document = orjson.loads(whole_report().model_dump_json())
    for name in ("command", "splits", "forms", "sparsity", "quantized_layers"):
        del document[name]
    for variant in document["variants"]:
        for name in ("curves", "disagreements", "layers"):
            del variant["qualify"][name]
    (tmp_path / "report.json").write_bytes(orjson.dumps(document))

    found = read_report(tmp_path / "report.json")

    assert found.schema_version == 1
    assert "## Mistakes" in markdown(found)


def test_pairs_are_told_with_their_interval_and_in_words() -> None:
    pair = PairedSpeed(
        against="fp32", device_kind="cpu", ratio=1.1, ci_low=0.9, ci_high=1.2, rounds=40, batch_sizes=(1, 4)
    )
    words = "not surely faster than fp32 here (1.10 times as fast, 95% interval 0.90 to 1.20)"
    report = bare_report(paired_speeds=(pair,), latency=whole_report().variants[0].qualify.latency)
    found = tables(report)["Speed in pairs: 40 rounds, all batch sizes alike"]

    assert texts(found) == [["fp16", "fp32", "1.100", "0.900 - 1.200", words]]
    assert "Speed in pairs" not in markdown(whole_report())


def test_file_that_is_no_report_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")

    with pytest.raises(RecipeError, match=r"report\.json is not a report of this schema"):
        read_report(tmp_path / "report.json")


def test_pictures_beyond_the_page_s_size_are_named_instead() -> None:
    report = bare_report(disagreements=whole_report().variants[1].qualify.disagreements)
    page = html(report, {"fp16-example-1.jpg": b"\xff" * 1_500_000})

    assert "fp16-example-1.jpg lies beside the report" in page
    assert len(page) < 2_000_000


def test_untrained_network_is_said_to_be_one() -> None:
    assert "**The weights are random" in markdown(whole_report(weights="random"))
    assert "The weights are random" not in markdown(whole_report())


def test_report_without_any_timing_or_extras_still_renders() -> None:
    report = bare_report()

    assert "latency" not in drawers_of(report)
    assert "Not measured" in html(report, {})
    assert "accuracy_latency.png" not in markdown(report)


def test_an_unjudged_report_says_so_and_names_looser_limits() -> None:
    thresholds = GateThresholds(mode="parity", max_metric_drop=0.02)
    report = whole_report(thresholds=thresholds, looser_data_limits=("data.limits.max_near 1 (default 0.05)",))
    text = markdown(report)

    assert "Unjudged: the recipe says gate: {mode: parity}." in text
    looser = "The recipe asks for less than the defaults: max_metric_drop 0.02 (default 0.005), data.limits.max_near 1"
    assert f"{looser} (default 0.05)." in text
    assert f"{looser} (default 0.05)." in html(report, {})
    assert "Unjudged" not in markdown(whole_report())


def test_an_unjudged_report_shows_agreement_and_no_metric_in_its_verdict() -> None:
    variant = VariantReport(qualify=qualified("int8-cpu", agreement={"top1": 0.9876}), gate=decision(check("a")))
    report = whole_report(thresholds=GateThresholds(mode="parity"), variants=(variant,))
    section = next(each for each in sections_of(report) if each.title == "Verdict")
    (table,) = (block for block in section.blocks if isinstance(block, Table))

    assert table.header == ("variant", "gate", "agreement with the eager network", "MiB")
    assert [row[2] for row in table.rows] == ["top1 0.9876"]
    assert not any("reaches" in str(block) for block in section.blocks)


def test_a_detector_is_told_at_its_threshold_beside_every_score() -> None:
    figure = MetricFigure(name="map", value=0.754, ci_low=0.74, ci_high=0.77, split="test", images=400)
    point = OperatingPoint(score_threshold=0.25, metric=figure, precision=0.91, recall=0.82, f1=0.86)
    drop = MetricDrop(value=0.008, ci_low=0.001, ci_high=0.0118)
    variant = VariantReport(
        qualify=qualified("int8-cpu", operating_point=point, operating_drop=drop), gate=decision(check("a"))
    )

    report = whole_report(variants=(variant,), reference_operating_point=point, lost={"fp16": "no kernel"})

    (row,) = next(
        texts(block)
        for section in sections_of(report)
        for block in section.blocks
        if isinstance(block, Table) and "F1" in block.header
    )
    assert row == ["int8-cpu", "0.7540", "+0.0080 (+0.0118)", "0.9100", "0.8200", "0.8600"]
    assert "fp16 could not be made: no kernel." in markdown(report)


@pytest.mark.parametrize(("images", "is_unknown"), [(10, True), (11, False)])
def test_too_few_pictures_say_nothing_of_a_shift(images: int, is_unknown: bool) -> None:
    whole = whole_report()
    first = whole.variants[0]
    metric = first.qualify.metric.model_copy(update={"images": images})
    pictures = PictureFigure(psnr=30.0, ssim=0.9)
    reference = ReferenceFigure(metric=metric, chance=0.2, guess="the input", pictures=pictures)
    qualify = first.qualify.model_copy(update={"reference": reference})
    report = whole.model_copy(update={"variants": (first.model_copy(update={"qualify": qualify}),)})

    assert ("a pixel beside them is unknown: fewer than 11" in markdown(report)) == is_unknown


@pytest.mark.parametrize(
    ("metric", "told"), [("ssim", "and of its frame: the same, reference"), ("depth_accuracy", "reference")]
)
def test_pictures_that_networks_made_have_rows_of_their_own(metric: str, told: str) -> None:
    report = whole_report()
    made = report.model_copy(
        update={"task": Task.IMAGE, "reference": report.reference.model_copy(update={"name": metric})}
    )

    shown, plain = (html(each, {"int8-cpu-example-1.jpg": PICTURE}) for each in (made, report))

    assert 'class="gallery wide"' in shown
    assert f"what was sent, {told}" in shown
    assert 'class="gallery wide"' not in plain
    assert "reference left, int8-cpu right" in plain
