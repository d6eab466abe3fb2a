"""All that durable runs need of Lightning's private parts."""
