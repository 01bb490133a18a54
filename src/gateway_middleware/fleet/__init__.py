"""What the workers of one server, and replicas, tell each other: through a directory, and through Redis."""
