"""Runtimes behind one seam. Promises: a backend's libraries are imported only when it is chosen.

`base.py` is the seam, `requests.py` says what it asks for from a manifest, `registry.py` knows all backends by name.
`onnxruntime_backend.py` runs files on the CPU, `onnxruntime_cuda.py` on a GPU if `node_assignment.py` lets it, with one
`onnxruntime_session.py` per batch size in a form that `onnxruntime_forms.py` chooses.
`tensorrt_backend.py` runs plans; `tensorrt/` has its parts. `fake_backend.py` answers from the pixels alone.
`cuda/` is the seam to the device.
"""
