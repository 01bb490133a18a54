"""Where limits are counted: windows in memory and in Redis, by the same rules."""
