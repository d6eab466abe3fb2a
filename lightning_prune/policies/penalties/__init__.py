"""What pushes weak channels and slices towards zero while a model trains."""
