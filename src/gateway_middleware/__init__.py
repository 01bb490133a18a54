"""The Model Gateway."""
