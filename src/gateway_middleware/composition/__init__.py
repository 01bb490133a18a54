"""Where settings become parts: one file for each part of a gateway."""
