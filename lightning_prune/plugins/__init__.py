"""Floor 4: plugins of the Trainer."""
