"""Authorization: whether a tenant may call, and on what terms, as a policy-adapter says."""
