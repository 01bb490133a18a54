"""The cost of a streamed answer inside its last usage object, for clients that ask for it."""
