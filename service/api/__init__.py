"""An HTTP process: requests enter, are prepared, sent to a device worker, and answered."""
