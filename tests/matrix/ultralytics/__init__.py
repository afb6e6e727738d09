"""The library Ultralytics beside the product: its networks, its export, its `predict`, on real photographs.

The library is AGPL: it is in an environment of its own, and is never a dependency. Both sides only share files.

1. `networks.py` says which networks, `environment.py` makes the library's environment, `scenes.py` draws what two
   networks are trained on.
2. `inside.py` runs there: makes or trains a network (`spread.py`), exports it, writes the library's own answers.
3. `runner.py` runs here: `saccade-export init` and `run` without an edited line, and the published file's answers.
4. `rows.py` is the form of a row with its verdict, `table.py` writes ULTRALYTICS.md.

`python -m tests.matrix.ultralytics --setup`, then `--run` (`make matrix-ultralytics`).
"""
