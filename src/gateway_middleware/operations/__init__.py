"""What the on-call reads: health, providers, models, metrics."""
