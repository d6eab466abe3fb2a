"""Check a built site: `python docs/site/check.py build/docs`.

What a page loads is local, and every link within the site leads to a page and a place in it.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements that load nothing: what they lead to is opened by whoever clicks.
LINKS = {"a", "form"}
LOADING = ("src", "href", "poster", "data", "action")
REMOTE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^)'\"\s]*")


class Page(HTMLParser):
    """The places that a page has, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.references: list[tuple[str, str]] = []
        self.styles: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element refers to, and its name."""
        self._in_style = tag == "style"
        for name, value in attrs:
            if value is None:
                continue
            if name in ("id", "name"):
                self.places.add(value)
            elif name in LOADING:
                self.references.append((tag, value))
            elif name == "srcset":
                self.references += [(tag, part.split()[0]) for part in value.split(",")]
            elif name == "style":
                self.styles.append(value)

    def handle_data(self, data: str) -> None:
        """Collect what a style sheet within the page says."""
        if self._in_style:
            self.styles.append(data)


def faults(folder: Path) -> Iterator[str]:
    """Yield a line for everything that is wrong."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        for tag, reference in page.references:
            fault = _fault(tag, reference, path, pages)
            # Nobody knows from which folder a server shows the page of what is missing.
            if fault and not (name == "404.html" and reference.startswith("/")):
                yield f"{name}: <{tag}> {reference}: {fault}"
        yield from (f"{name}: {remote} is loaded" for remote in _remote(page.styles))
    for path in sorted(folder.rglob("*.css")):
        text = [path.read_text("utf-8")]
        yield from (f"{path.relative_to(folder)}: {remote} is loaded" for remote in _remote(text))


def _remote(styles: list[str]) -> list[str]:
    return [found for style in styles for found in REMOTE.findall(style)]


def _fault(tag: str, reference: str, path: Path, pages: dict[Path, Page]) -> str:
    parts = urlsplit(reference)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return "" if tag in LINKS else "is loaded from elsewhere"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "leads nowhere"
    if not parts.fragment or target not in pages:
        return ""
    known = pages[target].places | {"__search", "__toc"}
    return "" if unquote(parts.fragment) in known else "names a place that is not there"


def main(folder: str) -> None:
    """Print what is wrong, and exit with 1 if there is something."""
    root = Path(folder).resolve()
    found = list(faults(root))
    count = len(list(root.rglob("*.html")))
    print("\n".join(found) or f"{count} pages: all links resolve, nothing is loaded from elsewhere")
    sys.exit(bool(found) or not count)


if __name__ == "__main__":
    main(*sys.argv[1:])
