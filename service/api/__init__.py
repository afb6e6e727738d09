"""The HTTP process: requests enter it, are decoded, sent to a device worker, and answered."""
