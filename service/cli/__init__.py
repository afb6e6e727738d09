"""One file per subcommand of `saccade`.

`predict_asking.py` asks a server about images, and `predict_offline.py` predicts without one. Answers are printed for
people by `predict_text.py`, for programs by `predict_formats.py`; `brush_runs.py` is how Label Studio has masks.
`engines.py` is the subcommand `repository engines`; `options.py` holds options that several commands share;
`verification.py` checks one version for `repository verify`.
"""
