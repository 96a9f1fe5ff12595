"""The measurable rules of docs/conventions.md about names and prose hold over lumigraph, README and docs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests import style_rules

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "lumigraph").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "decisions" not in p.parts)]
MAX_BARE_SHARE = 0.008  # of all bound names
MAX_HEADLESS_PER_10K_WORDS = 5.0


def test_names_are_nouns() -> None:
    results = {path: style_rules.bare_participles(path.read_text("utf-8")) for path in SOURCES}
    violations = [f"{path}:{line} {name}" for path, (names, _) in results.items() for name, line in names]
    total = sum(count for _, count in results.values())
    assert len(violations) <= MAX_BARE_SHARE * total, f"{len(violations)} of {total}:\n" + "\n".join(violations)


def check_prose(texts: list[tuple[Path, str, int]]) -> None:
    results = [(path, *style_rules.headless_clauses(text, line)) for path, text, line in texts]
    violations = [f"{path}:{line} {clause}" for path, clauses, _ in results for clause, line in clauses]
    limit = MAX_HEADLESS_PER_10K_WORDS * sum(words for *_, words in results) / 10_000
    assert len(violations) <= limit, f"{len(violations)}, limit {limit:.1f}:\n" + "\n".join(violations)


def test_docstrings_and_comments_have_subjects() -> None:
    check_prose([(path, text, line) for path in SOURCES for text, line in style_rules.prose(path.read_text("utf-8"))])


def test_pages_have_subjects() -> None:
    check_prose([(path, path.read_text("utf-8"), 1) for path in PAGES])


def test_file_names_are_unique() -> None:
    """Exceptions: kernels/reference mirrors kernels; a package of wire or server/api may share a resource's name."""
    mirrors = [("kernels", "reference"), ("server", "api"), ("wire",)]
    paths = [path.relative_to(ROOT / "lumigraph") for path in SOURCES if not path.stem.startswith("__")]
    counts = Counter(path.stem for path in paths if not any(path.parts[: len(m)] == m for m in mirrors))
    assert [stem for stem, count in counts.items() if count > 1] == []


def test_constants_name_their_unit() -> None:
    violations = [
        f"{path}:{line} {name}"
        for path in SOURCES
        for name, line in style_rules.constants_without_unit(path.read_text("utf-8"))
    ]
    assert not violations, f"{len(violations)}:\n" + "\n".join(violations)


def test_style_rules_find_violations() -> None:
    bare, count = style_rules.bare_participles("found = 1\nfeatures = 2\ndef f(asked, self): pass\n")
    assert ([name for name, _ in bare], count) == (["found", "asked"], 5)
    clauses, words = style_rules.headless_clauses("What it made is hashed. Output files are hashed by `whatever`.")
    assert (len(clauses), words) == (1, 10)
    source = "PATIENCE = 5.0  # seconds for an answer\nACK_TIMEOUT_S = 5.0  # seconds\nGAP = 3  # views\n"
    assert style_rules.constants_without_unit(source) == [("PATIENCE", 1)]
