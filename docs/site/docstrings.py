"""Let mkdocstrings show the formulas and the examples of docstrings."""

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from formulas import with_formulas

# An example that has no heading of its own.
_PROMPT = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.M | re.S)


class MarkdownDocstrings(griffe.Extension):
    """Rewrite every docstring: formulas, and examples as the section that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Rewrite one docstring; aliases share that of what they stand for."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            text = _PROMPT.sub(r"```pycon\n\g<0>\n```", text)
            obj.docstring.value = with_formulas(text)
