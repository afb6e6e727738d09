"""Task metrics: top-1, mean average precision, mean intersection over union."""
