"""Tables of docs/formats.md, one for each kind of asset: contents, options and verdicts of each file."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lumigraph.studio import registry
from tests.formats.gallery.assets import TYPES
from tests.formats.gallery.cases import Case

BEGIN, END = "<!-- from here on written by python -m tests.formats.gallery -->\n", "<!-- to here -->\n"
TITLES = {"splats": "Splats", "mesh": "Meshes", "points": "Points"}
HEAD = "| file | carries | options | verdict | opened elsewhere |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """A file of the gallery with its results; `likeness` is the PSNR in dB against our render."""

    case: Case
    bytes: int
    count: int
    verdicts: list[str]
    job: dict[str, Any]
    viewer: str = ""
    likeness: float = 0.0
    mirrored: float = 0.0

    def line(self) -> str:
        case = self.case
        name = case.path(Path()).parent.name
        size = f"{self.bytes / 1e6:.1f} MB"
        suffix = case.file.removeprefix("scene")
        picture = f'<img src="images/formats/{name}.jpg" width="240" alt="The sample as {self.viewer} shows it">'
        cells = [f"{case.name}<br>`{suffix}`<br>{size}", case.carries, options(case), "<br>".join(self.verdicts)]
        return f"| {' | '.join(cells)} | {picture}<br>{self.viewer} |\n"


def options(case: Case) -> str:
    """Names of the options, with the values that this file was written with."""
    file_format = registry.format_for(Path(case.file), TYPES[case.kind])
    names = [field.name for field in fields(file_format.Options)]
    if file_format.NAME.startswith("glTF") and case.kind != "mesh":
        names = (
            names[:2] if case.kind == "points" else []
        )  # gaussians are never compressed, and only meshes have textures
    return ", ".join(f"`{name}={case.settings[name]}`" if name in case.settings else f"`{name}`" for name in names)


def update_docs(rows: list[Row], captures: dict[str, str], page: Path) -> None:
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no section for the tables: put {BEGIN.strip()} and {END.strip()} into it")
    tables = []
    for kind, title in TITLES.items():
        kind_rows = [row for row in rows if row.case.kind == kind]
        if kind_rows:
            count = {"splats": "gaussians", "mesh": "triangles", "points": "points"}[kind]
            tables.append(
                f"### {title}: {kind_rows[0].count:,} {count}\n\n{HEAD}{''.join(row.line() for row in kind_rows)}\n"
            )
    tables.append(
        "### Photos with poses\n\n| folder | carries | options | verdict |\n|---|---|---|---|\n"
        f"| COLMAP | photos, cameras, poses, points where there are any | `--dataset colmap` | {captures['COLMAP']} |\n"
        "| `transforms.json` | photos, cameras, poses | `--dataset transforms` | not verified |\n\n"
    )
    section = BEGIN + "\n" + "".join(tables) + END
    page.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: section, text, flags=re.DOTALL))
