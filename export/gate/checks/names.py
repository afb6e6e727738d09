"""Numbers every check that the gate can give, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Mapping

GATE_BY_CHECK: Mapping[str, str] = {
    "file_hash": "G0",
    "weights_hash": "G0",
    "report_hash": "G0",
    "thresholds": "G0",
    "trained_weights": "G0",
    "preprocess": "G1",
    "conversion": "G1",
    "parity": "G1",
    "mask": "G2",
    "effective_precision": "G3",
    "silent_layers": "G3",
    "plan_precision": "G3",
    "sparse_tactic": "G4",
    "sparse_gain": "G4",
    "agreement": "G5",
    "plausible_answers": "G5",
    "unjudged": "G6",
    "test_images": "G6",
    "better_than_guessing": "G6",
    "metric_floor": "G6",
    "metric_drop": "G6",
    "operating_drop": "G6",
    "class_drop": "G6",
    "device_metric": "G6",
    "device_operating_drop": "G6",
    "hostile_inputs": "G7",
    "batch_invariance": "G8",
    "determinism": "G9",
    "speed_ratio": "G10",
    "paired_speed": "G10",
    "device_latency": "G10",
    "latency": "G10",
    "throughput": "G10",
    "memory": "G10",
    "latency_regression": "G10",
    "metric_regression": "G10",
}
