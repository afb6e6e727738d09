"""Rewrites networks into operators that every target has; each rewrite is proven where it is applied.

Before tracing, on modules (`export/convert/folding.py` applies and proves them)
- `torch_modules.py` knows which classes have a replacement.
- `cond_conv.py` runs K convolutions and mixes their outputs, where kernels were mixed per sample.
- `standardised_conv.py` puts standardised weights into a plain convolution.

After conversion, on graphs (`export/convert/onnx_optimization.py` applies and proves them)
- `patches_to_image.py` turns Col2Im into a transposed convolution.
- `fourier.py` turns DFT of a fixed length into matrix products.
- `antialiased_resize.py` turns antialiased Resize of a fixed size into two matrix products.

For TensorRT only (`export/plans/tensorrt_from_onnx.py` applies them to what it parses)
- `byte_input.py` lets it read uint8 images.
- `suppression_for_tensorrt.py` turns NonMaxSuppression into rounds of matrix products.
"""
