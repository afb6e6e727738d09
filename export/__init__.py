"""saccade's exporter: from a checkpoint to a published, gated version.

A recipe's way (`pipeline.py` lists the steps as data and runs them; `steps.py` says what a step is)
1. `wrap.py` builds the deploy module: `normalisation.py` folds normalisation, `answer_heads.py` gives the answer.
2. `reference.py` runs the eager float network on the test split.
3. `onnx_from_torch.py` converts, `onnx_optimization.py` slims and rewrites (`graph_rewrites.py`).
4. `precision.py` makes each variant's file; int8: `calibration.py` observes, `thresholds.py` picks ranges,
   `quantization.py` places Q/DQ, the tuning split's metric picks the calibrator.
5. `qualify.py` measures that file: `parity.py`, `accuracy.py`, `benchmark.py`, raced against its `bare_graph.py`.
6. `judge.py` asks `gate.py` (a pure function) and writes the report: `report.py`, `plots.py`.
7. `publish.py` adds the version through `repository.py`, and sample images through `samples.py`.

Beside them
- `recipe.py` validates recipe.yaml, `sources/` loads networks, `datasets.py` loads splits with the serving decoder.
- `artifact.py` stores what steps made, by content. `onnx_graph.py` answers questions about graphs.
- `evidence.py`, `detection_evidence.py` and `bootstrap.py` turn per-image results into metrics with intervals.
- `qualify_report.py` and `export_report.py` are what was measured; `serving.py` opens files as the service does.
- `matrix/` takes every network of the seeds through all of it and keeps the table.
- `cli.py` is the program, `progress.py` its lines and bars, `errors.py` every failure it can name.

Import direction: models <- service <- export. Only this package imports torch for work on deploy graphs.
"""

import os

# onnxruntime reads it while it is imported, and it is imported all over this package: no device id is written.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
