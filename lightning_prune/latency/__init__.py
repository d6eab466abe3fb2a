"""How long networks take where they run: measured, and from that foretold of any widths."""
