"""Runs that go on exactly where they stopped."""
