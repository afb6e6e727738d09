"""A device worker: a process that owns one device, forms batches, and runs them."""
