"""`make bench-gpu`: plans, backends and the server on a GPU, into report-gpu.json, report-gpu.md and plots.

    python -m tests.load.gpu_bench --prepare .saccade/gpu/onnx     # ONNX files; no GPU needed; 2.5 minutes
    python -m tests.load.gpu_bench                                 # all stages; prepares what is missing
    python -m tests.load.gpu_bench --only bare,paired --network resnet50-224 --budget-s 540
    python -m tests.load.gpu_bench --device cpu                    # seconds: the same code at toy size, no figures

Stages: plans, bare, graphs, paired, reference, limits, served. A call does what is still open; run it again to go on.
Each stage begins new cases only within its share of `--budget-s` (`STAGE_SHARES`), so `served` always has its turn.
Where calls are cut off, leave two minutes: a case that is killed counts as failed until `--retry-failed`. What cannot
run here stands in the report with its reason. The JSON has one row per figure and says which call, commit and machine
it comes from. `--runtime` and `--variant` leave all others out.

The time on a GPU is not known yet: timing alone is 4 seconds for each of some 200 rows of `bare`, and `plans` takes as
long as TensorRT does for 18 plans per runtime. `--network` and `--only` cut it into calls.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.load.gpu_cases import STAGES, Selection, Stage, networks_for, stage_seconds, variants_for
from tests.load.gpu_networks import BenchNetwork
from tests.load.gpu_prepare import VARIANTS, prepare, prepared_facts
from tests.load.gpu_reference import run_reference
from tests.load.gpu_report import markdown
from tests.load.gpu_rows import Budget, Kind, ReportRefused, Rows
from tests.load.gpu_served import run_limits, run_served
from tests.load.gpu_stages import Bench, DeviceGone, run_bare, run_graphs, run_paired, run_plans
from tests.support.gpu_machine import EXPORTER, GPU, gpu_machine, imported, provenance

ROOT = Path(__file__).resolve().parents[2]
REPORT = Path("report-gpu.json")
_WORK = Path(".saccade/gpu")
_RUNS: Mapping[Stage, Callable[[Bench], None]] = {
    "plans": run_plans,
    "bare": run_bare,
    "graphs": run_graphs,
    "paired": run_paired,
    "reference": run_reference,
    "limits": run_limits,
    "served": run_served,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 also where nothing could run, since the report says so; 2 for a report that must not change,
    3 where a case cost this process its device, 130 for an interrupted call.
    """
    given = _parser().parse_args(arguments)
    networks = networks_for(given.device, given.network)
    only = Selection(tuple(given.runtime), tuple(given.variant))
    variants = [name for name in variants_for(given.device) if not only.leaves_out(variant=name)]
    if given.prepare is not None:
        prepare_missing(networks, given.prepare, variants, anew=True)
        return 0
    is_cpu = given.device == "cpu"
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory())) if is_cpu else given.work
        report = given.report or (work / "report-cpu.json" if is_cpu else REPORT)
        if is_cpu and report.name == REPORT.name:
            print(f"{report} is for figures of a GPU: name another --report", file=sys.stderr)
            return 2
        kind: Kind = "cpu self-check" if is_cpu else "gpu"
        machine = gpu_machine()
        command = ["python", "-m", "tests.load.gpu_bench", *(sys.argv[1:] if arguments is None else arguments)]
        try:
            rows = Rows(report, kind, provenance(machine, ROOT, command, given.commit))
        except ReportRefused as refused:
            print(refused, file=sys.stderr)
            return 2
        prepared = given.onnx or work / "onnx"
        if machine.has(EXPORTER) and (is_cpu or machine.has(GPU)):  # without a GPU they would be made for nothing
            prepare_missing(networks, prepared, variants)
        bench = Bench(
            machine=machine,
            device=given.device,
            prepared=prepared,
            work=work,
            rows=rows,
            budget=Budget(given.budget_s),
            networks=networks,
            case_s=given.case_s,
            retry_failed=given.retry_failed,
            selection=only,
            connections=given.connections,
            jpeg_decoder=given.jpeg_decoder,
            say=_say,
        )
        code = 0
        try:
            run_stages(bench, given.only)
        except DeviceGone as gone:
            print(f"{gone}; run the command again to go on with the next case", file=sys.stderr)
            code = 3
        except KeyboardInterrupt:  # whoever ends a call keeps what it has found
            _say("interrupted: the report has what was found until now")
            code = 130
        text = write_report(rows, report)
        _say(counted(rows, report))
        if is_cpu:
            print(text)
    return code


def run_stages(bench: Bench, stages: Sequence[Stage], runs: Mapping[Stage, Callable[[Bench], None]] = _RUNS) -> None:
    """Each stage with time of its own, so that no stage uses up what a later one needs."""
    for stage in stages:
        seconds = stage_seconds(stage, stages, bench.budget.seconds, bench.budget.left_s())
        runs[stage](replace(bench, budget=Budget(seconds, bench.budget.clock)))


def prepare_missing(
    networks: Sequence[BenchNetwork], directory: Path, variants: Sequence[str] = VARIANTS, *, anew: bool = False
) -> None:
    """The ONNX files of the networks that have none yet."""
    for network in networks:
        if anew or prepared_facts(directory, network) is None:
            prepare(network, variants, directory, _say)


def write_report(rows: Rows, report: Path) -> str:
    """Writes the Markdown and the plots beside the JSON; returns the Markdown."""
    plots: list[str] = []
    problem = imported("matplotlib")[1]
    if not problem:
        from tests.load.gpu_plots import write_plots

        plots = write_plots(rows.document, report)
    text = markdown(rows.document, plots) + (f"\nNo plots: {problem}.\n" if problem else "")
    report.with_suffix(".md").write_text(text)
    return text


def counted(rows: Rows, report: Path) -> str:
    """One line of what the report holds."""
    every = rows.document["rows"].values()
    failed, not_run = (sum(kind in row for row in every) for kind in ("failed", "not_run"))
    return f"{report.with_suffix('.md')}: {len(every) - failed - not_run} measured, {failed} failed, {not_run} not run"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="only make the ONNX files, below DIR")
    parser.add_argument("--onnx", type=Path, metavar="DIR", help="where --prepare wrote; default: below --work")
    parser.add_argument("--work", type=Path, default=_WORK, help="repositories and plans; kept for the next call")
    parser.add_argument("--report", type=Path, help=f"default: {REPORT}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a self-check at toy size")
    parser.add_argument("--network", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--only", type=_stages, default=STAGES, help=f"of {','.join(STAGES)}")
    parser.add_argument("--runtime", action="append", default=[], help="only those named so, or so at the beginning")
    parser.add_argument("--variant", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--connections", type=_counts, default=(), help="of `served`, as 4,8,16; default: a search")
    parser.add_argument("--jpeg-decoder", choices=("auto", "cpu", "gpu"), default="auto", help="of `served`")
    parser.add_argument("--commit", default="", help="for the report, where this folder is no git repository")
    parser.add_argument("--budget-s", type=float, default=3600.0, help="shared by the stages; none begins a case later")
    parser.add_argument("--case-s", type=float, default=2.0, help="of timing per figure")
    parser.add_argument("--retry-failed", action="store_true", help="also what failed in an earlier call")
    return parser


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _stages(text: str) -> tuple[Stage, ...]:
    """Those named, in the order in which one needs the other's figures."""
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in STAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in chosen)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
