"""Pictures and their truth: found, checked, divided into splits, decoded as the server decodes them.

- `class_folders.py`, `coco_boxes.py`, `yolo_boxes.py` and `mask_folders.py` list the pictures of a layout
  (`pictures.py`), with `label_names.py` and `found_files.py`; `split_sources.py` says which split they belong to.
- `check.py` reads them all (`reading.py`), looks for copies (`overlap.py`), says what their number resolves
  (`resolution.py`) and makes `data_report.py` of it; `findings.py` collects, `bad_boxes.py` judges boxes.
- `data_step.py` is the step of a run, `data_table.py` prints.
"""
