"""Reads plans and statistics; never decides. Tables, figures, files."""
