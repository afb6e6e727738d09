"""One file per subcommand of `saccade`.

`predict_offline.py` predicts without a server, and `predict_text.py` prints its lines; `engines.py` is the subcommand
`repository engines`; `options.py` holds options that several commands share; `verification.py` checks one version for
`repository verify`.
"""
