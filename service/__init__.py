"""saccade's server. A folder is a process, or what processes share.

    api/         an HTTP process: requests enter here, are decoded, sent to a device, and answered
    worker/      a device worker: the process that owns one device; `scheduling/` forms batches, `gpu_jpeg/` decodes
    supervisor/  the parent process: starts and replaces the others, decides what is loaded where; `placement/` counts
                 memory, `engines/` has TensorRT plans built, `tuning/` chooses the form of the processes by measuring
    ipc/         what these three share: messages, shared memory, how a child starts and ends
    vision/      pixels in, answers out: decoding, and one file per task
    backends/    one file or folder per runtime
    repository/  reads, verifies and lists published versions and TensorRT plans
    cli/         the program `saccade`; bench/ is the load client behind `saccade bench`
    core.py errors.py settings.py metrics.py logs.py device_names.py: nouns, failures, settings, metrics of all

`api`, `worker` and `supervisor` never import each other; a test holds it.

A request's life
1. `api/http/vision_routes.py` reads key, model, parameters and body, and counts each request's one outcome.
2. `api/predictor.py` tells the rest as one story. `api/admission.py` and `api/device_lines.py` decide whether
   the request may enter, and on which device; a permit and a slot are taken, or the answer is 429.
3. `vision/image_decoder.py` decodes the picture; `models/contract/preprocessing.py` writes its pixels into the slot
   (`ipc/tensor_slots.py`, shared memory).
4. `api/worker_client.py` sends the slot's number to the device worker (`ipc/messages.py`).
5. `worker/process.py` queues the request (`worker/scheduling/queue.py`). When the device is free,
   `worker/scheduling/fair_share.py` chooses the model and `worker/scheduling/batching.py` the requests of the batch.
6. `worker/device_loop.py` gathers the batch and runs it with a backend; answers are written into the slots. Where the
   GPU decodes JPEGs faster, the slot holds the file's bytes, and `worker/batch_filling.py` makes pixels of them here.
7. `vision/answers.py` renders the answer in the coordinates of the picture that was sent.

A version's life
1. `supervisor/serving.py` sees a new directory, and `repository/verify.py` verifies it.
2. `supervisor/versions.py` keeps the state of each version; `supervisor/placement/` chooses devices for it.
3. `worker/loading.py` loads it and runs every allowed batch size once; `supervisor/devices.py` hears that it is ready.
4. `api/catalog.py` learns of it, and requests go to the newest ready version. On demand, `api/cold_starts.py` holds
   requests while their version is loaded. `supervisor/ladder.py` says which cheaper variants may answer when time is
   short.

Import direction: models <- service <- export. Nothing here imports torch or export.
"""

if __name__ != "saccade.service":
    raise ImportError("this package is imported as `saccade.service`: under a second name it would exist twice")


__version__ = "0.1.0"
