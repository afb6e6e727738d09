"""One file per subcommand of `saccade`.

`predict` without a server is `predict_offline.py`, its lines `predict_text.py`; `repository engines` is `engines.py`;
`options.py` are those that several share; `verification.py` is what `repository verify` checks of one version.
"""
