"""Token metering: what every call used, what it cost, kept until the sink has it."""
