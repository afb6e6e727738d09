"""saccade's exporter: from a checkpoint to a published, gated version. A folder is a stage.

    sources/        loads the network of a library or a file, and says what the library knows of it
    data/           reads the pictures, labels and slices of a recipe with the serving decoder, and checks them
    convert/        builds the deploy graph (pixels in, task answer out), traces it, converts it, proves it equal
    graph/          reads and rewrites ONNX graphs
    compression/    makes other forms of the weights: `sparsity/` is 2:4, `pruning/` removes whole channels
    precision/      makes each variant's file; `quantization/` makes those of int8 and fp8
    extras/         adds outputs to a variant's file that are computed only for requests that ask: explanations
    plans/          builds TensorRT plans, of new and of published versions
    qualification/  measures each variant's file: parity, task metric, speed, structure
    gate/           judges the measurements by the recipe's limits, and settles later what only a device can tell
    reports/        writes report.md and report.html
    publish/        adds the version to the repository, signed
    interchange/    writes published versions in the form of other servers
    cli/            the program `saccade-export`

    network.py         what every source gives: a module, its outputs, what its library knows
    recipe.py          validates recipe.yaml, which `recipe_gaps.py` completes from its source
    step_table.py      lists the steps as data; `steps.py` says what a step is, `pipeline.py` runs them
    artifact.py        keeps what steps made, by content; `import_closure.py` finds the code that a step depends on
    variants.py        what a variant's name means: a form of the weights in a precision
    errors.py          every failure that the exporter names

A recipe's way
1. `sources/` loads the network.
2. `convert/wrap.py` builds the deploy module and `convert/trace.py` traces it; `convert/folding.py` merges
   layers.
3. `data/preprocess_check.py` compares the server's pixels with the library's own (`data/fidelity.py`).
4. `compression/compress.py` makes other forms of the weights, which go the same way.
5. `convert/onnx_from_torch.py` converts, `convert/conversion_proof.py` holds the file to the eager network on
   `convert/proof_images.py` and finds networks whose images must not share a batch;
   `convert/onnx_optimization.py` simplifies and rewrites.
6. `qualification/reference.py` runs the eager float network on the test split; `qualification/library_agreement.py`
   compares its answers with another program's, where the recipe asks for that.
7. `plans/targets.py` asks which runtimes take the graph.
8. `precision/make.py` makes each variant's file; `extras/make.py` adds and proves what requests may ask for besides.
9. `qualification/qualify.py` measures that file through `qualification/serving.py`, which opens it as the server does;
   `qualification/speed_step.py` times all files in turns (`service/paired_timing.py`), and
   `qualification/corruption_step.py` asks them about corrupted pictures, where the recipe asks for that.
10. `gate/judge.py` judges; `reports/` tells.
11. `publish/publish.py` adds the version through `publish/repository.py`, with sample images (`publish/samples.py`) and
    the test images that a plan is measured by (`publish/evidence_pack.py`); `publish/signing.py` signs it.

`cli/demo.py` is `make demo`.

Import direction: models <- service <- export. Only this package imports torch for work on deploy graphs.
"""

if __name__ != "saccade.export":
    raise ImportError("this package is imported as `saccade.export`: under a second name it would exist twice")


import os

# onnxruntime reads it while it is imported, and it is imported all over this package: no device id is written.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
