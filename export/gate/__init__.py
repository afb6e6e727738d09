"""Decides what may be published: denied variants never are, pending ones are never chosen, and both are reported.

judge.py            step `gate`: judges all variants and has the report written
judged_variants.py  puts measured variants before the gate
decision.py         the gate: a pure function
checks/             its checks, one named line each
limits.py           the recipe's section `gate`, with ceilings
table.py            verdicts as a table
on_device.py        settles pending checks on the machine that has the device
device_figures.py   measures one plan there
device_seam.py      defines what a device must do; device_probe.py uses the GPU of this machine through TensorRT, and
                    onnxruntime_probe.py through ONNX Runtime
plan_layers.py      reads what TensorRT's inspector says of a plan
adopted_plans.py    takes the measured plans into the version that they settled
plan_gate.py        judges one plan by what its version carries, without the recipe
settled_version.py  publishes what a device settled
"""
