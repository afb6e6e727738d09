"""The program `saccade-export` and its commands."""
