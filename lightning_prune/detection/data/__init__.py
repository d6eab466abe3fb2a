"""Data modules of images with boxes."""
