"""What replicas tell each other about breakers and cooldowns."""
