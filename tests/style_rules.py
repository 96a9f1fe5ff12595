"""The measurable rules of docs/conventions.md about names and prose, as functions over one source file.

python -m tests.style_rules FILE...      lists each violation with its line
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PRONOUN = re.compile(
    r"""another|anything|both|each|either|everything|he|here|him|it|its|mine|neither|nobody|nothing|one|ones|others?|ours
    |rest|she|something|such|that|theirs|them|there|these|they|this|those|us|we|what|which|who|whom|whose""",
    re.VERBOSE,
)
PARTICIPLE = re.compile(
    r"""[a-z]{2,}ed
    |asked|been|begun|bent|bound|bought|broken|brought|built|caught|chosen|come|done|drawn|driven|eaten|fallen|fed|felt
    |found|frozen|given|gone|got|gotten|grown|had|heard|held|hidden|kept|known|laid|lain|led|lent|lit|lost|made|meant|met
    |paid|said|sat|seen|sent|shown|sold|spent|spoken|spread|stood|struck|stuck|swept|sworn|taken|taught|thought|thrown
    |told|torn|understood|went|won|worn|wound|woven|written|asking|being|coming|doing|getting|giving|going|having|making
    |saying|seeing|taking|telling|wanting""",
    re.VERBOSE,
)
NOT_PARTICIPLES = {
    "bed",
    "embed",
    "exceed",
    "feed",
    "need",
    "proceed",
    "red",
    "seed",
    "shed",
    "speed",
    "succeed",
    "expected",
    "antialiased",
}
HEADLESS = re.compile(
    r"\bwhat(?:ever)?\b(?! is new)|\bwho(?:ever|soever)?\b(?=\s+(?:is|has|asks|comes|gives|takes))|\bnobody\b", re.I
)

UNIT_SUFFIXES = {
    "seconds": "S|SECONDS?",
    "milliseconds": "MS|MILLISECONDS?",
    "minutes": "MINUTES?|MIN",
    "hours": "HOURS?",
    "days": "DAYS?",
    "pixels": "PX|PIXELS?",
    "bytes": "BYTES?",
    "metres": "M|METRES?",
    "degrees": "DEG|DEGREES?",
    "megapixels": "MEGAPIXELS?",
}
UNIT_COMMENT = re.compile(rf"#\W*({'|'.join(UNIT_SUFFIXES)})\b(?! (?:a|per)\b)")

UNIT_IN_NAME = re.compile(rf"(?:^|_)(?:{'|'.join(UNIT_SUFFIXES.values())})(?:_|$)")
CODE_SPAN = re.compile(r"`[^`\n]+`")


def is_bare_participle(name: str) -> bool:
    """Whether a name is one participle or pronoun without a noun: `found`, `asked`, `one`."""
    word = name.strip("_")
    if word in NOT_PARTICIPLES:
        return False
    return bool(PRONOUN.fullmatch(word) or PARTICIPLE.fullmatch(word))


def bound_names(source: str) -> Iterator[tuple[str, int]]:
    """Each name that a Python source binds, with its line: functions, classes, arguments, targets, attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno


def prose(source: str) -> Iterator[tuple[str, int]]:
    """Comments and docstrings of a Python source, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield text, node.body[0].lineno


def bare_participles(source: str) -> tuple[list[tuple[str, int]], int]:
    """Bare participles and pronouns among the bound names, and the number of all bound names."""
    names = list(bound_names(source))
    return [(name, line) for name, line in names if is_bare_participle(name)], len(names)


def headless_clauses(text: str, line: int = 1) -> tuple[list[tuple[str, int]], int]:
    """Clauses without a noun ("what is", "whoever", "nobody") in a text without its `code`, and its word count."""
    text = CODE_SPAN.sub(lambda match: "`" + " " * (len(match[0]) - 2) + "`", text)
    clauses = [
        (text[max(0, m.start() - 20) : m.end() + 30].replace("\n", " "), line + text.count("\n", 0, m.start()))
        for m in HEADLESS.finditer(text)
    ]
    return clauses, len(re.findall(r"[A-Za-z']+", text))


def constants_without_unit(source: str) -> list[tuple[str, int]]:
    """List module-level numbers in UPPER_CASE whose trailing comment starts with a unit that their name lacks."""
    lines, violations = source.splitlines(), []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, match = node.targets[0].id, UNIT_COMMENT.search(lines[node.lineno - 1])
        is_number = all(
            isinstance(part, ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop)
            for part in ast.walk(node.value)
        )
        if match and name.isupper() and is_number and not UNIT_IN_NAME.search(name):
            violations.append((name, node.lineno))
    return violations


def main(paths: list[str]) -> None:
    """Print each violation, then the two measures."""
    names = participles = clauses = words = 0
    for path in paths:
        source = Path(path).read_text("utf-8")
        texts = [(source, 1)]
        if path.endswith(".py"):
            texts = list(prose(source))
            for name, line in constants_without_unit(source):
                print(f"{path}:{line}: constant {name} lacks the unit of its comment")
            bare, count = bare_participles(source)
            names, participles = names + count, participles + len(bare)
            for name, line in bare:
                print(f"{path}:{line}: name {name!r} is a bare participle or pronoun")
        for text, line in texts:
            headless, count = headless_clauses(text, line)
            clauses, words = clauses + len(headless), words + count
            for clause, at in headless:
                print(f"{path}:{at}: headless clause: {clause}")
    share = 100 * participles / max(names, 1)
    print(f"{participles} of {names} bound names ({share:.2f} %) are bare participles or pronouns")
    rate = 1e4 * clauses / max(words, 1)
    print(f"{clauses} headless clauses in {words} words ({rate:.1f} per 10,000)")


if __name__ == "__main__":
    main(sys.argv[1:])
