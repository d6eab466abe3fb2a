"""Floor 4: the stages. They decide when, and call the floors below."""
