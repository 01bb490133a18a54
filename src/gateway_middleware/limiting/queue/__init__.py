"""Waiting for a concurrency slot instead of a refusal."""
