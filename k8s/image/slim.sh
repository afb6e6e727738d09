#!/bin/sh
# Takes from an installed environment what no serving process reads: packages' tests, type stubs, headers, ONNX
# Runtime's tools for exporting, our checkpoints, and the debug information that some wheels carry.
#
#   slim.sh SITE-PACKAGES
set -eu

site=${1:?usage: slim.sh SITE-PACKAGES}
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' \) -delete
rm -rf "$site"/onnxruntime/transformers "$site"/onnxruntime/tools "$site"/onnxruntime/quantization
rm -rf "$site"/saccade/models/checkpoints
# The library for C programs; Python's module contains all of it. What CUDA's provider loads was never tried without it.
[ -e "$site"/onnxruntime/capi/libonnxruntime_providers_cuda.so ] || rm -f "$site"/onnxruntime/capi/libonnxruntime.so.*
# Libraries that a wheel brings along were moved by patchelf, which strip breaks.
if command -v strip > /dev/null; then
  find "$site" -type f -name '*.so' -not -path '*.libs/*' -not -path '*/nvidia/*' -exec strip --strip-unneeded {} +
fi
