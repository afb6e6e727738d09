"""Writing a version into a model repository, signed."""
