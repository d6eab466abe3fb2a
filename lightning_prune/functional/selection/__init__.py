"""The nine steps of activation-based channel selection."""
