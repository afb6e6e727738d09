"""saccade's server. A folder is a process, or what processes share.

    api/         an HTTP process: requests enter here, are decoded, sent to a device, and answered
    worker/      a device worker: the process that owns one device; `scheduling/` forms batches, `gpu_jpeg/` decodes
    supervisor/  the parent process: starts and replaces the others, decides what is loaded where (`reconciler.py`);
                 `placement/` counts memory, `engines/` has TensorRT plans built, `tuning/` chooses the form of the
                 processes by measuring, `rollout/` carries automatic rollouts on
    ipc/         what these three share: messages, shared memory, how a child starts and ends
    vision/      pixels in, answers out: decoding, and one file per task
    backends/    one file or folder per runtime
    repository/  reads, verifies and lists published versions and TensorRT plans; `object_store/` keeps a copy of a
                 repository that lies in an object store
    cli/         the program `saccade`; bench/ is the load client behind `saccade bench`
    client/      what users import as `saccade.client`; it stands by itself
    core.py errors.py settings.py metrics.py logs.py device_names.py running_figures.py: what all of them
    use

`api`, `worker` and `supervisor` never import each other; a test holds it.

A request's life
1. `api/http/vision_routes.py` reads key, model, parameters (`api/http/request_head.py`) and body, and counts each
   request's one outcome. Tensors of the Open Inference Protocol come by `api/http/oip/`, and over gRPC by `api/grpc/`,
   which asks the HTTP endpoints.
   While many are refused, `api/http/early_refusals.py` refuses them in the parser (`api/http/limited_heads.py`).
   `api/http/conventions.py` has what holds on every path, `api/http/key_gate.py` asks for a key on the others
   (`api/key_watch.py` follows the file of keys), `api/http/content_encoding.py` reads compressed bodies.
2. `api/predictor.py` tells the rest as one story. `api/admission.py` lets the request enter and says on which device,
   by `api/admission_rules.py` and by what `api/instance_estimates.py` expects of each; it gives a permit for a slot
   (`api/slots.py`), or the answer is 429.
3. `api/slot_filling.py` decodes the picture (`vision/image_decoder.py`, mostly in `api/image_threads.py`, where
   `api/decode_room.py` bounds the memory that `vision/decoding_cost.py` expects; slow ones by `api/decoding_apart.py`
   in the processes of `api/decoding_child.py`; still WebPs by `vision/webp_pixels.py`) and writes
   its pixels into the slot (`models/contract/preprocessing.py`, `ipc/tensor_slots.py`: shared memory).
   `vision/jpeg_segments.py` and `vision/png_chunks.py` pass over what is no pixels, `vision/more_formats.py` names the
   formats that a setting allows.
4. `api/worker_client.py` sends the slot's number to the device worker (`ipc/messages.py`, `ipc/frames.py`).
5. `worker/process.py` queues the request (`worker/scheduling/queue.py`). When the device is free,
   `worker/scheduling/fair_share.py` chooses the model and `worker/scheduling/batching.py` the requests of the batch;
   beside other models, `worker/scheduling/run_length.py` keeps the run short.
6. `worker/device_loop.py` gathers the batch and runs it with a backend; answers are written into the slots. Where the
   GPU decodes JPEGs faster, the slot holds the file's bytes, and `worker/batch_filling.py` makes pixels of them here;
   `api/decoding_share.py` decides which of them.
7. `vision/answers.py` renders the answer in the coordinates of the picture that was sent, and `vision/extras.py` what
   the request asked for besides; `api/asking.py` sends it to a version of a rollout and an instance that give it, a
   mask of kinds (`models/contract/extras.py`) travels with it, and a batch computes what any of its images asks for.
8. `api/http/vision_routes.py` counts and answers. Where an endpoint for traces is named, `api/tracing/` makes spans of
   what the request knew of itself.
9. Where the version has a shadow, `api/shadows.py` asks that one afterwards, `vision/comparison.py` says how far both
   agree, and `api/disagreements.py` keeps the worst (`repository/disagreements.py`).

A version's life
1. `supervisor/repository_watch.py` lists the repository (`repository/open.py`), reads desired states
   (`supervisor/serving_documents.py`, `repository/serving_document.py`; `saccade rollout` and `api/http/admin.py`
   write them, by `repository/serving_changes.py`), and verifies new versions (`repository/verify.py`).
   `supervisor/pins.py` checks before the start what a setting names. Of a repository in an object store all of this
   sees a copy, which `supervisor/repository_mirror.py` keeps: `repository/object_store/contents.py` decides what it
   holds, `repository/object_store/mirror.py` looks and fetches, `repository/object_store/documents.py` writes.
2. All of this, what workers and API processes say, and what was decided about TensorRT plans (`supervisor/engines/`)
   is noted in `supervisor/observed.py`, in the types of `supervisor/state.py`, and wakes `supervisor/reconciler.py`.
3. One turn of it decides. `supervisor/desired.py` is a pure function of the facts: `wanted.py` and `policy.py` say
   which versions are wanted, `ladder.py` in which variants, `placement/allocate.py` on which devices and what leaves
   for them. Its `commands` are the next steps: place, load, take from the catalog, unload.
4. `worker/loading.py` loads an instance and runs every allowed batch size once; the worker reports, and step 3 comes
   again until nothing is left to do. A catalog goes to the API processes whenever it has changed.
5. `api/catalog.py` applies it: requests go to the stable version, or a canary (`api/canary.py`). On demand,
   `api/cold_starts.py` holds requests while their version is loaded. `api/fallback.py` says when cheaper variants
   answer. Once no process uses an older catalog, what has left it is unloaded, `worker/freed_memory.py` returns its
   memory, and its metrics go some versions later (`ipc/retired_versions.py`, `ipc/metric_files.py`). What processes
   counted that have ended is added up in `supervisor/ended_metrics.py`.
6. An automatic rollout is judged by `supervisor/rollout/decide.py`, from what API processes count (`api/tallies.py`);
   `supervisor/rollout/controller.py` writes the next document, and step 1 comes again.

Import direction: models <- service <- export. Nothing here imports torch or export.
"""

if __name__ != "saccade.service":
    raise ImportError("this package is imported as `saccade.service`: under a second name it would exist twice")


__version__ = "0.1.0"
