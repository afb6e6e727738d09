"""The matrix: library networks of every kind through the whole product, one row each, figures and failures alike.

1. `entries.py` says which networks, as data; `documents.py` turns an entry into a recipe.
2. `weights.py` writes seeded random weights with real spread, so that rows also exercise loading them.
3. `probe.py` is the child process of one entry: pipeline, plans (`plans.py`), a served answer (`served.py`).
4. `runner.py` starts children, bounds their time and merges what they say; `rows.py` is the form of a row.
5. `table.py` renders the rows as Markdown.

6. `trained.py` fetches trained ONNX files out of packages, `drawn_pictures.py` draws pictures for them,
   `photographs.py` has real ones, and `own_answers.py` holds what was published to them, with `own_boxes.py`
   for detectors. `draw.py` draws networks at random.

7. `ultralytics/` holds one library's networks to its own `predict`, in an environment of its own.

`python -m tests.matrix` (`make matrix`) runs it; `networks/` holds three networks that only it takes.
"""
