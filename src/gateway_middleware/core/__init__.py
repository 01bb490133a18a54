"""Nouns, errors, scope keys and ASGI types that every room uses, and the contract between dispatch and adapters."""
