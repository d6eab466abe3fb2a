"""Runs that continue exactly where they stopped."""
