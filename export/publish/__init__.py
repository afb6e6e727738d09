"""Writes a version into a model repository and signs it."""
