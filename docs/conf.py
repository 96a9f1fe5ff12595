"""The documentation site: Sphinx over these Markdown pages, with an API reference from docstrings.

make docs      writes build/site; a broken link or reference is an error
"""

from __future__ import annotations

import re
import textwrap
from importlib.metadata import version as installed_version
from pathlib import PurePosixPath
from typing import Any

project = "Lumigraph"
author = "The Lumigraph authors"
version = release = installed_version("lumigraph")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "Lumigraph"
myst_heading_anchors = 4  # levels of headings that `page.md#heading` may name
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

REPOSITORY_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")
CODE = re.compile(r"(`[^`]+`)")


def name_repository_files(app: Any, page: str, source: list[str]) -> None:
    """Replace links to files outside docs/, which the site does not hold, by the file's path."""
    folder = PurePosixPath("docs", page).parent

    def path_of(match: re.Match[str]) -> str:
        parts: list[str] = []
        for part in (folder / match[2]).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        path = "/".join(parts)
        if path.startswith("docs/"):
            return match[0]
        return f"`{path}`" if match[1].strip("`") in path else f"{match[1]} (`{path}`)"

    source[0] = REPOSITORY_LINK.sub(path_of, source[0])


def docstring_as_rst(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Turn a plain docstring into reStructuredText: `code` becomes a literal, an indented block a code block."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    blocks = []
    for paragraph in paragraphs:
        is_indented = all(line.startswith("    ") for line in paragraph.splitlines() if line.strip())
        is_table = re.search(r"^\S.*\n {2,}", paragraph, re.MULTILINE)  # "Args:" and lists of names
        if paragraph.strip() and (is_indented or is_table):
            blocks.append("::\n\n" + textwrap.indent(textwrap.dedent(paragraph), "    "))
        else:
            blocks.append("".join(map(_inline, CODE.split(paragraph))))
    lines[:] = [*"\n\n".join(blocks).splitlines(), ""]


def _inline(text: str) -> str:
    """One piece of a paragraph: a literal, or prose whose special characters are escaped."""
    return f"`{text}`" if CODE.fullmatch(text) else re.sub(r"([*|\\]|_\b)", r"\\\1", text)


def setup(app: Any) -> None:
    """Register both hooks with Sphinx."""
    app.connect("source-read", name_repository_files)
    app.connect("autodoc-process-docstring", docstring_as_rst)
