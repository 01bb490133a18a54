"""What a request may hold where tenants share a provider account: one allow-list per surface."""
