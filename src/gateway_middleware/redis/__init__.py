"""The one way to Redis: protocol, connection, addresses."""
