"""Metrics: subclasses of torchmetrics.Metric."""
