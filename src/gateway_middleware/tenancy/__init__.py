"""Authentication: from the credential of a call to its tenant."""
