"""What exporter and server agree on: task specifications, manifest, plan records, preprocessing."""
