"""The runtimes that can run a network, one file or folder each; a backend's libraries are imported only when it is
chosen.

`base.py` declares what a backend does, `requests.py` makes its load request from a manifest, and `registry.py` finds
a backend by name. `plan_checks.py` refuses plans before a runtime opens them.
`onnxruntime_backend.py` runs files on the CPU, `onnxruntime_cuda.py` on a GPU if `node_assignment.py` lets it, with one
`onnxruntime_session.py` per batch size in a form that `onnxruntime_forms.py` chooses.
`openvino_backend.py` runs files on the CPU in OpenVINO, float ones in fp32 or bfloat16.
`tensorrt_backend.py` runs plans; `tensorrt/` has its parts. `fake_backend.py` answers from the pixels alone.
`cuda/` makes all CUDA calls.
"""
