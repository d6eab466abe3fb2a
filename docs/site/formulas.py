"""Formulas as MathML, which browsers draw by themselves: no script is fetched."""

import re

from latex2mathml.converter import convert

# In docstrings: the formula begins behind the directive or below it, and ends at an empty line.
_DIRECTIVE = re.compile(r"^( *)\.\. math::[ \n]*(.+?)(?=\n\s*\n|\Z)", re.M | re.S)
_ROLE = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(r"^( *)\$\$(.+?)\$\$", re.M | re.S)
_INLINE = re.compile(r"\$`([^`]+)`\$")


def with_formulas(text: str) -> str:
    r"""Return Markdown with every formula as MathML.

    A formula is `$$...$$` at the start of a line or ``$`...` `` with a closing dollar, as GitHub
    reads them, or `.. math::` and `:math:`, as docstrings have them.
    """
    text = _DIRECTIVE.sub(r"\1$$\2$$", text)
    text = _BLOCK.sub(lambda found: found[1] + _mathml(found[2], "block"), text)
    return _INLINE.sub(_inline, _ROLE.sub(_inline, text))


def _inline(found: re.Match[str]) -> str:
    return _mathml(found[1], "inline")


def _mathml(formula: str, display: str) -> str:
    made = convert(" ".join(formula.split()), display=display)
    # Markdown would read what is emphasis to it.
    return str(made).replace("*", "&#42;").replace("_", "&#95;").replace("|", "&#124;")
