"""Checkpoint files that are whole, honest and readable."""
