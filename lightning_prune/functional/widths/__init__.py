"""How many channels each layer keeps."""
