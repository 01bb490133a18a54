"""How usage events reach `usage-metering`."""
