"""Object detection: network, module, data, metric and predictions."""
