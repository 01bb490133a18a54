"""Serving: how the gateway listens when it runs on its own."""
