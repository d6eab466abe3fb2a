"""HTML from templates: one file, everything in it, all text escaped."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from lightning_prune.report.page.numbers import bytes_text, change_text, compact, metric_text

PACKAGE = "lightning_prune.report.page"


def render(template: str, **context: Any) -> str:
    """Return the page of a template of ``templates/``."""
    return _environment().get_template(template).render(**context)


def embedded(content: Any) -> Markup:
    r"""Return JSON that may be put into a script element, whatever texts are in it.

    >>> embedded({"name": "</script>"})
    Markup('{"name":"\\u003c/script\\u003e"}')
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "compact": compact,
        "metric": metric_text,
        "size": bytes_text,
        "embedded": embedded,
    }
    environment.globals |= {"part": _part, "change": change_text}
    return environment


def _text(name: str) -> str:
    return (files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")


def _part(name: str) -> Markup:
    """Return a file of the package as it is: style and script."""
    return Markup(_text(name))
