"""Finds pictures and their truth, checks them, divides them into splits and decodes them as the server does.

- `class_folders.py`, `coco_boxes.py`, `yolo_boxes.py` and `mask_folders.py` list the pictures of a layout
  (`pictures.py`), with `label_names.py` and `found_files.py`; `outlines.py` reads masks of objects, and
  `split_sources.py` assigns pictures to splits; `unlabelled.py` lists pictures where no label is needed.
- `check.py` reads all pictures (`reading.py`), looks for copies (`overlap.py` with `nearest_pictures.py`), estimates
  what their number can resolve (`resolution.py`) and writes `data_report.py`;
  `findings.py` collects complaints and `bad_boxes.py` judges boxes.
- `slices.py` reads which camera, site or light each picture belongs to; `familiar_pictures.py` says how many pictures
  a score of trust needs.
- `data_step.py` is the step of a run, and `data_table.py` prints its report.
"""
