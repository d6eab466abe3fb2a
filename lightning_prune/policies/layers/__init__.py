"""Which layers a policy looks at."""
