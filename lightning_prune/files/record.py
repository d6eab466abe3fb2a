"""What stands for a pickled object that is not made."""

from typing import Any


class Record:
    """Stands for an object of an unknown class or the result of an unknown function.

    Attributes:
        path: Dotted name of the class or function, as the file has it.
        arguments: What it was called with.
        state: What it would have been given as its state, or None.
        items: What would have been appended, added or set, as (key, value) where by key.
    """

    path = ""

    def __init__(self, *arguments: Any, **options: Any):
        self.arguments = (*arguments, *options.items())
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *arguments: Any, **options: Any) -> "Record":
        """Create the record with all fields, since unpickling may skip the initialiser."""
        record = super().__new__(cls)
        Record.__init__(record, *arguments, **options)
        return record

    def __call__(self, *arguments: Any, **options: Any) -> "Record":
        """Return a record in place of the result of a call, which is not made."""
        return Record(self, *arguments, **options)

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the state as a dict of attributes; empty where it is anything else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:
            parts = [part for part in state if isinstance(part, dict)]
            state = {key: value for part in parts for key, value in part.items()}
        return state if isinstance(state, dict) else {}
