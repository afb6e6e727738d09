"""Reference networks. Promises: float NCHW RGB in 0..1 goes in; factories take JSON-able arguments."""
