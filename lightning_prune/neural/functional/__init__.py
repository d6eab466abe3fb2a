"""Likelihoods and scores of spike counts, as functions on tensors."""
