"""saccade's exporter: from a checkpoint to a published, gated version.

A recipe's way (`step_table.py` lists the steps as data, `pipeline.py` runs them, `steps.py` says what a step is,
`variants.py` what a variant's name means: a form of the weights in a precision)
1. `sources/` loads the network of a library or file as a `network.py` Network, and says what the library knows of it.
2. `wrap.py` builds the deploy module and `trace.py` traces it: `folding.py` merges layers (`folding_hooks.py`,
   `layer_pairs.py`), `normalisation.py` or `padding.py` prepares pixels, `answer_heads.py` and `detection_heads.py`
   give the answer, `suppression.py` is non-maximum suppression as one operator.
3. `preprocess_check.py` compares the server's pixels with the library's own (`fidelity.py`).
4. `compression/` makes other forms of the weights, which go the same way: `sparsity/` is 2:4, `pruning/` takes whole
   channels away.
5. `onnx_from_torch.py` converts: `splice.py` puts users' ONNX graphs in place, `layer_names.py` names nodes after
   layers, `large_files.py` keeps large weights beside the graph, `conversion_proof.py` holds the file to eager and
   finds networks whose images must not share a batch (`batching.py`).
6. `reference.py` runs the eager float network on the test split; `plain_answers.py` are textbook answers.
7. `onnx_optimization.py` slims and rewrites (`graph_rewrites.py`, `rewrites/`).
8. `targets.py` asks `operator_support.py` which runtimes take it; `tensorrt_from_onnx.py` builds plans;
   `plans/` has its parts, and builds those of published versions.
9. `precision/` makes each variant's file, `quantization/` those of int8 and fp8.
10. `qualification/` measures that file, through `serving.py`, which opens it as the service does.
11. `gate/` judges, and settles later what a device must settle; `reports/` tells.
12. `publish.py` adds the version through `repository.py`, and sample images (`samples.py`) and the test images that a
    plan is measured by (`evidence_pack.py`); `signing.py` signs it.

Beside them
- `recipe.py` validates recipe.yaml and completes it from its source; `init.py` writes the recipe of a checkpoint.
- `datasets.py` loads splits (`image_split.py`) with the serving decoder: `digit_data.py`, `folder_data.py` give
  `labelled_images.py`.
- `artifact.py` stores what steps made, by content; `import_closure.py` finds the modules that decide a step's outcome.
  `onnx_graph.py` answers questions about graphs.
- `matrix/` takes every network of the seeds through all of it and keeps the table.
- `cli.py` is the program: `cli_sources.py`, `cli_matrix.py`, `cli_recover.py`, `cli_signing.py`, `cli_gate.py`,
  `cli_build.py` with `cli_engines.py`; `progress.py` its lines and bars, `errors.py` every failure it can name.
  `engine_build.py` is the program that servers start, `demo.py` is `make demo`.

Import direction: models <- service <- export. Only this package imports torch for work on deploy graphs.
"""

if __name__ != "saccade.export":
    raise ImportError("this package is imported as `saccade.export`: under a second name it would exist twice")


import os

# onnxruntime reads it while it is imported, and it is imported all over this package: no device id is written.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
