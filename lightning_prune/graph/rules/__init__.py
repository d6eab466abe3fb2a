"""What operations do to labels of channels: movement, pointwise, contractions, mixers."""
