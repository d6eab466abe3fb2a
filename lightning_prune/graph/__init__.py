"""Floor 1: which channels of a network must shrink together, and what they cost."""
