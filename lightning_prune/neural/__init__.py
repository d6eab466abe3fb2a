"""Responses of recorded cells: network, module, data and metrics."""
