"""What the folder of a run says about its configuration, and what it may ask for."""
