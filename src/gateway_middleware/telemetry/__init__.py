"""OpenTelemetry traces of calls and attempts. An extra: nothing is imported before it is asked for."""
