"""saccade's server.

A request's life
1. `http/vision_routes.py` speaks HTTP: key, model, parameters, body; every end is counted once.
2. `scheduling/dispatch.py` chooses a device, `scheduling/admission.py` gives a permit and a slot there, or 429; so does
   `scheduling/waits.py` before the body is read, when the wait would take the time that the request has.
3. `vision/image_decoder.py` and `models/contract/preprocessing.py` write its pixels into the slot (`workers/tensor_slots.py`).
4. `workers/worker_client.py` sends ids to the device worker (`workers/messages.py`).
5. `workers/worker.py` queues it (`scheduling/queue.py`), unless it would be late behind what waits; when the device is
   free, `scheduling/fair_share.py` says which model's turn it is, and `scheduling/batching.py` which requests run.
6. `workers/device_loop.py` gathers, runs `backends/`, and the answer is written into the slot.
   Where `vision/gpu/` was measured to decode JPEGs faster, the slot has their bytes, and `workers/batch_filling.py`
   makes pixels of them in step 6.
7. `vision/answers.py` renders it in source coordinates: {classification,detection,segmentation}.py beside it.

`predictor.py` tells steps 2 to 7 as one story; `app.py` wires an API process, `supervisor.py` all processes: a worker
per device (`device_names.py`, `workers/device_supervision.py`) and what each has of a version (`version_table.py`,
`version_entry.py`). `version_serving.py` says which versions that are; sockets lie in `runtime_dir.py`.
`engines/` has TensorRT plans built, measured and swapped in while others serve.
`tuning/` chooses workers, threads and spinning on a processor by measuring them before all this begins;
`start_barrier.py` says when API processes listen. `cancellation.py` ends the waits of an image when its deadline has
passed or its client has left.
`offline.py` takes a folder through a version without any of this: `saccade predict --repository`.
`placement/` accounts for device memory and decides which devices get a version, and on demand who leaves for whom;
requests for what is not loaded wait in `cold_starts.py`.
`rungs.py` answers by a cheaper variant when time is short: `repository/ladder.py` says which there are,
`scheduling/brown_out.py` when.
`repository/` lists, checks and picks versions: `verify.py` by digest, `signature.py` by who signed (`trusted_keys.py`).
`rollout/` decides which version answers; `catalog.py` is what an API process knows of them.
`errors.py` has every failure, `metrics.py` every metric, `settings.py` every setting.
`bench/` is the load client behind `saccade bench`; the server does not import it.
`cli.py` is the `saccade` program, `commands/` its parts.

Import direction: models <- service <- export. Nothing here imports torch or export.
"""

if __name__ != "saccade.service":
    raise ImportError("this package is imported as `saccade.service`: under a second name it would exist twice")


__version__ = "0.1.0"
