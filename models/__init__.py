"""The contract between exporter and server, the reference data, and the reference networks.

    contract/    specs.py: tasks, tensors, preprocessing · manifest.py: what a published version says of itself ·
                 plans.py: what a TensorRT plan was made from · preprocessing.py: decoded image → network input, the
                 same in training, evaluation and serving · resampling.py: resizing within one level of Pillow and torch
                 instance_masks.py: mask tensors of detections → masks in source pixels · run_lengths.py: COCO's form
    digits/      digit_sources.py: digits and photographs, none in two splits · digit_strokes.py: one digit at any
                 size · backgrounds.py · digit_scenes.py: labelled JPEGs, deterministic by (split, seed, index)
    metrics/     metrics.py: top-1, mIoU · detection_metrics.py: mAP@[.50:.95] for any selection of images
    networks/    resnet.py · yolov10.py (yolov10_body.py, yolov10_blocks.py) · ddrnet.py (dappm.py) · layers.py
                 digits_vit.py · evit.py
    training/    python -m saccade.models.training.all; see its own map
    checkpoints/ trained weights and figures.json, what they reach on the test split
    recipes/     the recipes of the reference networks

Import direction: models ← service ← export. Only networks/ and the training commands import torch.
"""

if __name__ != "saccade.models":
    raise ImportError("this package is imported as `saccade.models`: under a second name it would exist twice")
