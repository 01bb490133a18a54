"""Reads a model call: its body, the model it names, and the route that the model leads to."""
