"""Texts that lie where a binary file was meant: pointers, web pages, answers of servers."""

import re
from typing import NamedTuple

_RAW = (
    "download the file itself (on GitHub by its Raw or Download button, on Hugging Face with "
    "/resolve/ in place of /blob/), after logging in where that is asked"
)
_AGAIN = "check the address and your access to it, and download it again"
_ANSWERS = re.compile(
    r"(?:\d{3}:? )?(?:entry |repository |page |file |object )?not found\b|access (?:is )?denied|"
    r"access to (?:model|dataset) |invalid (?:username|credentials)|unauthorized|forbidden|"
    r"too many requests|rate limit|(?:internal )?server error|bad gateway|service unavailable|"
    r"quota exceeded|nosuchkey|request has expired|link (?:has )?expired",
    re.IGNORECASE,
)
_XML_CODE = re.compile(r"<Code>([A-Za-z]{2,60})</Code>")
_JSON_ERROR = re.compile(r'"(?:error|message|detail|errors|title)"\s*:', re.IGNORECASE)
_JSON_DATA = re.compile(r'"(?:images|annotations|categories|names|version)"\s*:')


class TextKind(NamedTuple):
    """What a text is, and what to do."""

    what: str
    advice: str


def pointer_text(text: str) -> TextKind | None:
    r"""Return what a text is that stands in place of a file; None where it is nothing known.

    Args:
        text: The beginning of the file, some kilobytes.

    >>> pointer_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6243242\n")
    TextKind(what='a Git LFS pointer to 6,243,242 bytes', advice='run `git lfs install && ...')
    """
    text = text.lstrip("\ufeff \t\r\n")
    return _pointer(text) or _page(text) or _answer(text)


def _pointer(text: str) -> TextKind | None:
    if text.startswith(("version https://git-lfs.", "version https://hawser.")):
        size = re.search(r"^size (\d{1,15})\s*$", text, re.MULTILINE)
        what = f" to {int(size[1]):,} bytes" if size else ""
        return TextKind(
            f"a Git LFS pointer{what}",
            "run `git lfs install && git lfs pull` in the repository, or download the file itself",
        )
    if re.match(r"\S{0,300}annex[/\\]objects[/\\]", text):
        return TextKind("a pointer of git-annex", "run `git annex get` on it")
    if text.startswith("# xet version"):
        return TextKind("a pointer of git-xet", "run `git xet checkout`, or download the file")
    if re.match(r"(?:md5: \w+\n)?outs:\s*\n-", text) and re.search(r"^ *- ?md5:|md5:", text):
        return TextKind("a pointer of DVC", "run `dvc pull`")
    if text.startswith("[InternetShortcut]"):
        return TextKind("a web link", "download what it leads to")
    return None


def _page(text: str) -> TextKind | None:
    start = text[:1024].lower()
    if not (start.startswith(("<!doctype html", "<html", "<head", "<script")) or "<html" in start):
        return None
    lower = text.lower()
    if "google drive" in lower:
        quota = "quota" in lower
        why = "quota of downloads is used up" if quota else "warning about large files"
        return TextKind(
            f"a page of Google Drive ({why})",
            "wait a day or copy the file to a drive of yours"
            if quota
            else "confirm the download in a browser, or use gdown",
        )
    return TextKind("a web page (HTML) that was saved in place of the file", _RAW)


def _answer(text: str) -> TextKind | None:
    start = text[:2048]
    if start.startswith(("<?xml", "<svg", "<!--")) and "<svg" in start:
        return TextKind("an SVG drawing", "export it as PNG or JPEG")
    if start.startswith("<?xml") or start.startswith("<Error>"):
        code = _XML_CODE.search(start)
        if code or "<Error>" in start:
            name = f" ({code[1]})" if code else ""
            return TextKind(f"the error of a storage server{name}", _AGAIN)
        if re.search(r"<net\s", start):
            return TextKind("a model of OpenVINO", "give the file that it was exported from")
        return TextKind("an XML file", "give a file of another format")
    if text.startswith("{") and len(text) < 4096:
        if _JSON_ERROR.search(start) and not _JSON_DATA.search(text):
            return TextKind("the error of a server (JSON)", _AGAIN)
        return None
    if len(text) < 600 and _ANSWERS.match(text):
        return TextKind(f"the error of a server ({_excerpt(text)})", _AGAIN)
    return None


def _excerpt(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return "".join(c if c.isprintable() else "?" for c in line[:60])
