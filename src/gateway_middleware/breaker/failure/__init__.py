"""What a failed attempt means: its class, and everything that follows from it."""
