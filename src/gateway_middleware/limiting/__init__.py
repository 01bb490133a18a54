"""How much a tenant may: limits, reservations, leases and the queue in front of them."""
