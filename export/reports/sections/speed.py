"""Shows accuracy against speed, and every timing; figures of emulated variants are named, not drawn."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.pareto import ParetoPoint, comparable, pareto_set
from saccade.export.reports.sections.blocks import Block, Cell, Plot, Row, Section, Table, Text, figure
from saccade.models.contract.paired_speed import PairedSpeed


def tradeoff_section(report: ExportReport) -> Section:
    """Shows the choice between accuracy and speed that a user has to make."""
    if not report.thresholds.needs_labels:
        return Section("Accuracy against speed", (Text("Not measured: the recipe says gate: {mode: parity}."),))
    points, others = comparable(report.variants)
    blocks: list[Block] = []
    if points:
        best = pareto_set(points)
        device = next(each.qualify.measured_on for each in report.variants if each.qualify.variant == points[0].variant)
        alt = f"{report.reference.name} of each variant against latency and throughput; the Pareto set is marked"
        pairs = {each.qualify.variant: each.qualify.paired_speeds for each in report.variants}
        measured = ("ms at batch 1 (p50)", "images/s", "at batch", "in turns with the most exact")
        header = ("variant", "Pareto set", report.reference.name, *measured)
        blocks += [
            Plot("accuracy_latency", alt),
            Text(f"Measured on {device.name}, {device.threads} threads, by the server's own runtime."),
            Table(header, tuple(_point_row(point, point.variant in best, pairs[point.variant]) for point in points)),
        ]
    if others:
        blocks.append(
            Text(f"Not measured, because the device they are made for is not here: {', '.join(others)}.", "pending")
        )
    blocks.append(Plot("metric", f"{report.reference.name} of each variant with its interval"))
    return Section("Accuracy against speed", tuple(blocks))


def latency_section(report: ExportReport) -> Section:
    """Shows each batch size, the variants in pairs, and the deploy graph beside the bare one."""
    header = ("variant", "batch", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "images/s")
    rows = tuple(
        (
            variant.qualify.variant,
            str(timing.batch_size),
            f"{timing.p50_ms:.2f}",
            "-" if timing.p50_low_ms is None else f"{timing.p50_low_ms:.2f} - {timing.p50_high_ms:.2f}",
            f"{timing.p90_ms:.2f}",
            f"{timing.p99_ms:.2f}",
            f"{timing.images_per_s:.0f}",
        )
        for variant in report.variants
        for timing in variant.qualify.latency
    )
    ratios = tuple(
        (
            variant.qualify.variant,
            str(ratio.batch_size),
            f"{ratio.deploy_images_per_s:.0f}",
            f"{ratio.bare_images_per_s:.0f}",
            f"{ratio.ratio:.3f} [{ratio.ci_low:.3f}, {ratio.ci_high:.3f}]",
        )
        for variant in report.variants
        for ratio in variant.qualify.speed
    )
    blocks: list[Block] = [*_on_devices(report), *_efficiency(report)]
    if rows:
        devices = dict.fromkeys(
            f"{each.qualify.measured_on.name}, {each.qualify.measured_on.threads} threads"
            for each in report.variants
            if each.qualify.latency
        )
        blocks += [
            Plot("latency", "latency of each variant by batch size"),
            Table(header, rows, f"Latency on {'; '.join(devices)}, all variants in turns"),
            *_pairs(report),
        ]
    if ratios:
        title = "Deploy graph (uint8) against bare graph (normalised float), images/s, measured in turns"
        blocks.append(Table(("variant", "batch", "deploy", "bare", "ratio"), ratios, title))
    return Section("Latency", tuple(blocks))


def _pairs(report: ExportReport) -> Iterator[Block]:
    """Shows how fast the variants are beside each other; only these ratios say that one is faster."""
    rows = tuple(
        (each.qualify.variant, pair.against, f"{pair.ratio:.3f}", f"{pair.ci_low:.3f} - {pair.ci_high:.3f}", pair.text)
        for each in report.variants
        for pair in each.qualify.paired_speeds
    )
    if rows:
        pair = next(pair for each in report.variants for pair in each.qualify.paired_speeds)
        header = ("variant", "against", "times as fast", f"{pair.confidence:.0%} interval", "in words")
        yield Table(header, rows, f"Speed in pairs: {pair.rounds} rounds, all batch sizes alike")
        yield Text("A server prefers the less exact variant of a pair only where the interval is above 1.")


def _efficiency(report: ExportReport) -> Iterator[Block]:
    """Shows what each variant costs per image, and its share of the machine's peak."""
    found = [(each.qualify.variant, each.qualify.efficiency) for each in report.variants]
    rows = tuple(
        (
            variant,
            figure(each.gflops_per_image),
            figure(each.activations_m, 3),
            figure(each.weights_m, 3),
            ", ".join(f"{precision} {share:.1%}" for precision, share in sorted(each.share_of_flops.items())),
            "-" if each.batch_size is None else str(each.batch_size),
            figure(each.flops_per_byte, 1),
            figure(each.achieved_gflops_per_s, 1),
            "-" if each.share_of_peak is None else f"{each.share_of_peak:.1%}",
        )
        for variant, each in found
        if each is not None
    )
    if rows:
        costs = ("GFLOPs per image", "M activations", "M weights", "of the FLOPs")
        header = ("variant", *costs, "batch", "FLOPs per byte", "GFLOP/s", "of the measured peak")
        yield Table(header, rows, "Efficiency")
        yield Text(
            "FLOPs count a multiplication with its addition as two. The peak is what this machine reached in large "
            "matrix products of the same runtime and precision, with as many threads; a dash: not measured here."
        )


def _on_devices(report: ExportReport) -> Iterator[Table]:
    """Shows plans that were built and measured on the device they are for."""
    for variant in report.variants:
        found = variant.qualify.device
        if found is None:
            continue
        told = " (replayed from a recording)" if found.is_recorded else ""
        rows = tuple(
            (str(each.batch_size), f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.images_per_s:.0f}")
            for each in found.latency
        )
        title = f"{variant.qualify.variant} on {found.device.name}, {found.runtime}{told}"
        yield Table(("batch", "p50 ms", "p99 ms", "images/s"), rows, title)


def _point_row(point: ParetoPoint, is_best: bool, pairs: tuple[PairedSpeed, ...]) -> Row:
    mark = Cell("yes", "marked") if is_best else Cell("denied", "bad") if point.is_denied else Cell("no")
    return (
        point.variant,
        mark,
        f"{point.metric:.4f}",
        f"{point.p50_ms_batch_1:.2f}",
        f"{point.images_per_s:.0f}",
        str(point.best_batch),
        pairs[0].text if pairs else "",
    )
