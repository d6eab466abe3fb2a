"""All that the stages need of Lightning's private parts, by subject."""
