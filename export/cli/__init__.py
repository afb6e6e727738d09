"""Holds the program `saccade-export` and its commands."""
