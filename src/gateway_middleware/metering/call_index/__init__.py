"""What calls have used, kept in Redis for a day, so that any replica can tell of any call."""
