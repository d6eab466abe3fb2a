"""Compiled loops, each beside a twin in torch or NumPy that its test compares it with."""
