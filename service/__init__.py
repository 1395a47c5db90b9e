"""The online side of ctrlift: bundles served over HTTP. Never imports torch, models or training."""
