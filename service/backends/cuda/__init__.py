"""CUDA as saccade uses it. All calls go through the interface in `driver.py`, so that tests can simulate the device.

`runtime_driver.py` implements that interface with cuda-python; `failures.py` turns error codes into typed errors.
`buffers.py` plans the memory of batches in flight, and `lanes.py` owns it with its streams and events.
"""
