"""Which deployment takes a call, and which is left alone for a while: verdicts, breakers, cooldowns, retries, order."""
