"""Exported files behind one interface, whatever runs them."""
