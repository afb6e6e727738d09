"""The one import root: `saccade.service`, `saccade.models` and `saccade.export` are links to the folders beside it."""
