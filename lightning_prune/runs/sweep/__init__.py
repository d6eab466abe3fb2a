"""Sweeps that outlive failures and end with one table."""
