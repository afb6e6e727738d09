"""The Open Inference Protocol v2 over HTTP, on the same path as predict.

`tensors.py` reads requests, `answers.py` writes answers, `infer.py` is the endpoint between them, `documents.py` says
what there is, `routes.py` has the other paths. A model has one input: the deploy graph's uint8 pixels, or BYTES of
encoded pictures, which get the server's own preprocessing. Boxes are in the pixels of what was sent.
"""
