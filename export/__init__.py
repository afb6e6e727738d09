"""saccade's exporter: from a checkpoint to a published, gated version.

A recipe's way (`step_table.py` lists the steps as data, `pipeline.py` runs them, `steps.py` says what a step is,
`variants.py` what a variant's name means: a form of the weights in a precision)
1. `sources/` loads the network of a library or file as a `network.py` Network, and says what the library knows of it.
2. `wrap.py` builds the deploy module and `trace.py` traces it: `folding.py` merges layers (`folding_hooks.py`,
   `layer_pairs.py`), `normalisation.py` or `padding.py` prepares pixels, `answer_heads.py` and `detection_heads.py`
   give the answer, `suppression.py` is non-maximum suppression as one operator.
3. `preprocess_check.py` compares the server's pixels with the library's own (`fidelity.py`).
4. `onnx_from_torch.py` converts: `splice.py` puts users' ONNX graphs in place, `layer_names.py` names nodes after
   layers, `large_files.py` keeps large weights beside the graph, `conversion_proof.py` holds the file to eager and
   finds networks whose images must not share a batch (`batching.py`).
   `compress.py` makes other forms of the weights, which are converted the same way: `sparsity/` is 2:4, `pruning/`
   takes whole channels away,
   `recovery.py` teaches a form its answers back (`recovery_loss.py`, `recovery_images.py`), `compression.py` is what
   forms share, `compression_spec.py` their sections of a recipe; `threads.py` keeps small operations on one thread.
5. `reference.py` runs the eager float network on the test split; `plain_answers.py` are textbook answers.
6. `onnx_optimization.py` slims and rewrites (`graph_rewrites.py`, `rewrites/`).
7. `targets.py` asks `operator_support.py` which runtimes take it; `tensorrt_from_onnx.py` builds plans.
8. `calibrate.py` observes activations once per form (`calibration.py`); `precision.py` makes each variant's file
   (`precision_files.py` names it). `precision_quantized.py` makes int8 and fp8: `thresholds.py` picks ranges,
   `quantization.py` places Q/DQ for CPUs, `placement_trt.py` and `quantization_trt.py` for TensorRT
   (`quantization_schemes.py` holds them together), the tuning split's metric picks the calibrator, and for
   transformers whether LayerNorms get `equal_scales.py`.
   `quantized_candidates.py` measures each try, `sensitivity.py` each layer; `accuracy_control.py` gives layers back,
   `policy_search.py` and `policy_measurement.py` find blocks that are better left float.
   fp16, bf16: `mixed_precision.py` asks `precision_regions.py` what may be narrow (`float_formats.py`) and
   `casting.py` casts; `emulation.py` is how a CPU measures such files.
   `effective_precision.py` reads from a graph what it really multiplies in (`concrete_shapes.py` sizes it),
   `efficiency.py` what a machine makes of it.
9. `qualify.py` measures that file: `answer_measurements.py` (`parity.py`, `agreement.py`), `accuracy.py`,
   `speed_measurements.py` (`benchmark.py`, raced against its `bare_graph.py`), `file_structure.py` layer by layer.
   `curves.py` says where it is wrong, `disagreements.py` where its answers differ, `answer_pictures.py` draws that.
10. `judge.py` puts `judged_variants.py` before `gate.py`, a pure function (`gate_checks/`, `gate_thresholds.py`,
    `gate_table.py`), and writes the report: `report_inputs.py` collects what steps wrote (`compression_report.py`),
    `report_sections/` say it, `report.py` and `html_report.py` write it, `plots/` draw it, `pareto.py` chooses.
    `on_device.py` settles what was pending there: `device_probe.py` runs plans, `plan_layers.py` reads them,
    `settled_version.py` publishes the outcome.
11. `publish.py` adds the version through `repository.py`, and sample images (`samples.py`); `signing.py` signs it.

Beside them
- `recipe.py` validates recipe.yaml and completes it from its source; `init.py` writes the recipe of a checkpoint.
- `datasets.py` loads splits with the serving decoder: `digit_data.py`, `folder_data.py` give `labelled_images.py`.
- `artifact.py` stores what steps made, by content. `onnx_graph.py` answers questions about graphs.
- `evidence.py`, `detection_evidence.py` and `bootstrap.py` turn per-image results into metrics with intervals.
- `qualify_report.py` and `export_report.py` are what was measured; `serving.py` opens files as the service does.
- `matrix/` takes every network of the seeds through all of it and keeps the table.
- `cli.py` is the program, with `cli_sources.py`, `cli_matrix.py`, `cli_recover.py`, `cli_signing.py`, `cli_gate.py`; `progress.py` its
  lines and bars, `errors.py` every failure it can name. `demo.py` is `make demo`.

Import direction: models <- service <- export. Only this package imports torch for work on deploy graphs.
"""

import os

# onnxruntime reads it while it is imported, and it is imported all over this package: no device id is written.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
