"""The outermost room: request ids, errors in the client's dialect, one log line for each call."""
