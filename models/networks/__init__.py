"""Reference networks. Their input is float NCHW RGB in 0..1, and their factories take JSON-able arguments."""
