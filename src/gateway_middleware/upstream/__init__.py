"""The way to the providers: dispatch endpoint, HTTP engine, timeouts."""
