"""One file per subcommand of `saccade`.

`predict_asking.py` asks a server about images, and `predict_offline.py` predicts without one; `predict_text.py` prints
answers for people, `predict_formats.py` for programs, `brush_runs.py` for Label Studio's. `engines.py` is the subcommand
`repository engines`; `options.py` holds options that several commands share; `verification.py` checks one version for
`repository verify`.
"""
