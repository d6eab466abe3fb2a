"""Data modules of neural recordings."""
