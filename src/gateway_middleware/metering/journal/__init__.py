"""The durable record of calls: written before the provider is asked, closed before the answer ends."""
