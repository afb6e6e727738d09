"""The one import root: `saccade.service`, `saccade.models` and `saccade.export` are links to the folders beside it.

`saccade.client` is for users: what they import to ask a server.
"""
