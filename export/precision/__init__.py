"""Makes each variant's file in its precision: fp16, bf16, or, in `quantization/`, int8 and fp8.

    make.py                 step `precision`: which maker makes which variant
    files.py                names of what the step leaves
    mixed_precision.py      fp16 and bf16, with calibrated ranges
    regions.py              what may be narrow, and why the rest may not
    float_formats.py        what narrow floats can hold
    casting.py              the pass that casts
    emulation.py            how a CPU measures files that it cannot run as they are
    effective_precision.py  what each layer of a file really multiplies in
    concrete_shapes.py      tensor shapes for one image
    efficiency.py           multiply-adds, activations, achieved share of a measured peak

int8 and fp8 are made by `export/precision/quantization/`.
"""
