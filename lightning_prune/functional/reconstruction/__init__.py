"""Least squares: which inputs a layer can do without, and what the others make of them."""
