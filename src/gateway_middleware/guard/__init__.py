"""Guards: what looks at prompts and answers, and may replace or refuse them."""
