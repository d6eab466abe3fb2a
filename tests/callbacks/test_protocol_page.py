"""docs/callbacks.md lists the protocols as protocol.py says them."""

import ast
import os
from pathlib import Path

from lightning_prune.callbacks import protocol

PAGE = Path(__file__).resolve().parents[2] / "docs" / "callbacks.md"
BEGIN = "<!-- protocols: by WRITE_NAMES=1 pytest tests/callbacks/test_protocol_page.py -->\n"
END = "<!-- end of protocols -->"


def paragraph(node: ast.ClassDef | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


def member(node: ast.FunctionDef) -> str:
    arguments = [argument.arg for argument in node.args.args[1:]]
    if not node.decorator_list:
        return f"{node.name}({', '.join(arguments)})"
    return f"{node.name}: {ast.unparse(node.returns)}"


def section() -> str:
    """A line a protocol, and one for each of its members."""
    tree = ast.parse(Path(protocol.__file__).read_text(encoding="utf-8"))
    lines = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [base.id for base in node.bases if base.id != "Protocol"]
        extends = f" (a `{bases[0]}` too)" if bases else ""
        lines.append(f"- **`{node.name}`**{extends}: {paragraph(node)}")
        lines += [
            f"  - `{member(part)}`: {paragraph(part)}"
            for part in node.body
            if isinstance(part, ast.FunctionDef)
        ]
    return "\n".join(lines) + "\n"


def test_the_page_lists_every_protocol_and_its_members():
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    written, end, tail = rest.partition(END)
    assert end, "the page has a place for them"
    if os.environ.get("WRITE_NAMES"):
        PAGE.write_text(f"{head}{BEGIN}\n{section()}\n{END}{tail}", encoding="utf-8")
        return
    assert written.strip() == section().strip(), "say WRITE_NAMES=1"
