"""One circuit breaker and all of them: states, permits, windows, the registry."""
