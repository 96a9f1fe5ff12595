"""The layers of docs/architecture.md, checked by reading every import of lumigraph without running it.

An import counts anywhere: at the top, in a function, under TYPE_CHECKING, or as an argument of import_module. The
checks take a dictionary of sources, so that each is also tested with sources that break its rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lumigraph.studio.registry import METHODS

ROOT = Path(__file__).parents[1]
PACKAGE = "lumigraph"

CRAFTS = {"captures", "methods", "completion", "extract", "formats", "live"}

# Allowed imports of each package, next to its own modules; "wire" means all its modules, "wire.events" that one alone.
MAY_IMPORT: dict[str, set[str]] = {
    "wire": set(),
    "scene": set(),
    "kernels": set(),
    "captures": {"scene", "wire.events", "kernels.descriptor_match"},
    "methods": {"scene", "wire.events", "kernels"},
    "completion": {"scene", "wire.events"},
    "extract": {"scene", "wire.events", "kernels"},
    "formats": {"scene", "wire.events"},
    "live": {"scene", "wire"},
    "studio": {"scene", "wire", *CRAFTS},
    "jobs": {"wire"},
    "server": {"jobs", "wire"},
    "client": {"wire"},
    "worker": {"studio", "jobs", "wire", "scene.errors"},
    "cli": {"studio", "server", "jobs", "client", "wire", "scene.errors"},
    "__main__": {"cli"},
}
WITHOUT_TORCH = {"wire", "jobs", "server", "client"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}

Sources = Mapping[str, str]  # module name -> source text
Import = tuple[str, int]  # the module's full name, the line


def package_sources() -> dict[str, str]:
    """Read every module of lumigraph. An `__init__` has the name of its package."""
    sources = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return sources


def imports(name: str, sources: Sources) -> Iterator[Import]:
    """List the imports of module `name`. `from a import b` means a.b if that is one of our modules, else a."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in sources or not base.startswith(PACKAGE) else base), node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node.lineno


def own_imports(sources: Sources) -> dict[str, list[Import]]:
    """List the imports of our own modules in each of our modules."""
    return {
        name: [(target, line) for target, line in imports(name, sources) if target.split(".")[0] == PACKAGE]
        for name in sources
    }


def subpackage(module: str) -> str:
    """'scene' for 'lumigraph.scene.cameras'; '' for lumigraph itself, which has the version alone."""
    return module.split(".")[1] if "." in module else ""


def forbidden_imports(sources: Sources) -> list[str]:
    """List the imports outside MAY_IMPORT, and the packages that are not in it."""
    violations = []
    for name, targets in own_imports(sources).items():
        if subpackage(name) and subpackage(name) not in MAY_IMPORT:
            violations.append(f"{name}: MAY_IMPORT has no package {subpackage(name)!r}")
            continue
        for target, line in targets:
            inside = target.removeprefix(f"{PACKAGE}.")
            allowed = MAY_IMPORT.get(subpackage(name), set())
            if subpackage(target) not in {subpackage(name), "", *allowed} and inside not in allowed:
                violations.append(f"{name}:{line} imports {target}")
    return violations


def import_cycles(sources: Sources) -> list[str]:
    """List the modules that import themselves through others."""
    graph = {
        name: {target for target, _ in targets} & set(sources) - {name}
        for name, targets in own_imports(sources).items()
    }
    return [name for name in graph if name in reachable(graph, name)]


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return all nodes reachable from `start` by at least one step."""
    visited: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            pending += graph.get(name, ())
    return visited


def torch_imports(sources: Sources) -> list[str]:
    """List the modules that import torch against the rule, directly or through our other modules and their packages."""
    graph: dict[str, set[str]] = {}
    for name in sources:
        targets = {target for target, _ in imports(name, sources)}
        parents = {".".join(target.split(".")[:i]) for target in targets for i in range(1, target.count(".") + 1)}
        graph[name] = targets | (parents & set(sources))
    return [
        f"{name} reaches {target}"
        for name in sources
        if subpackage(name) in WITHOUT_TORCH
        for target in sorted(reachable(graph, name))
        if "torch" in target.split(".")
    ]


def unsafe_reads(sources: Sources) -> list[str]:
    """List calls and imports that can execute code from a file."""
    violations = []
    for name in sources:
        for target, line in imports(name, sources):
            if target.split(".")[0] in UNSAFE_MODULES or target in ("torch.load", "torch.save"):
                violations.append(f"{name}:{line} imports {target}")
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                violations.append(f"{name}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.Call) and allows_pickle(node):
                violations.append(f"{name}:{node.lineno} allows pickle")
    return violations


def allows_pickle(call: ast.Call) -> bool:
    """Whether allow_pickle is anything but a literal False, by keyword or as np.load's third argument."""
    arguments = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
    if ast.unparse(call.func) in ("np.load", "numpy.load"):
        arguments += call.args[2:3]
    return any(not (isinstance(value, ast.Constant) and value.value is False) for value in arguments)


# -- the package itself --


@pytest.mark.parametrize("check", [forbidden_imports, import_cycles, torch_imports, unsafe_reads])
def test_package_obeys_rule(check: Callable[[Sources], list[str]]) -> None:
    sources = package_sources()
    assert {f"{PACKAGE}.wire.events", f"{PACKAGE}.scene.cameras"} <= set(sources)  # the sources were read
    assert check(sources) == []


def test_packages_do_not_re_export() -> None:
    """An empty __init__ keeps `import lumigraph.scene.errors` from loading anything else."""
    for path in (ROOT / PACKAGE).rglob("__init__.py"):
        statements = [node for node in ast.parse(path.read_text("utf-8")).body if not isinstance(node, ast.Expr)]
        assert [ast.unparse(node).split(" = ")[0] for node in statements] in ([], ["__version__"]), path


def test_import_without_torch() -> None:
    """`torch_imports` in a real interpreter; cli too, because --help must answer at once."""
    names = [name for name in package_sources() if subpackage(name) in {*WITHOUT_TORCH, "", "cli"}]
    names.append(f"{PACKAGE}.scene.errors")
    names.remove(f"{PACKAGE}.jobs.migrations.env")  # a script that Alembic alone can run
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "False", process.stderr


# -- sources that break the rules --

BASE = {
    "lumigraph": "",
    "lumigraph.wire": "",
    "lumigraph.wire.events": "",
    "lumigraph.wire.requests": "",
    "lumigraph.scene": "",
    "lumigraph.scene.cameras": "import torch",
    "lumigraph.kernels": "",
    "lumigraph.kernels.descriptor_match": "",
    "lumigraph.kernels.splatting": "import torch",
    "lumigraph.formats": "",
    "lumigraph.formats.ply": "from lumigraph.scene.cameras import Cameras",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scene.new", "import lumigraph.wire.events"),
        ("scene.new", "from lumigraph.kernels import splat"),
        ("scene.new", "from ..wire import events"),
        ("kernels.new", "from .. import scene"),
        ("captures.new", "from lumigraph.formats.ply import read"),
        ("captures.new", "def f():\n    from lumigraph.formats import ply"),
        ("captures.new", "if TYPE_CHECKING:\n    from lumigraph.formats.ply import Splats"),
        ("captures.new", "importlib.import_module('lumigraph.formats.ply')"),
        ("captures.new", "from lumigraph.wire.requests import Job"),
        ("captures.new", "from lumigraph.kernels.splatting import render"),
        ("studio.new", "from lumigraph.kernels.splatting import render"),
        ("server.new", "from lumigraph.studio import verbs"),
        ("cli", "from lumigraph.scene.cameras import Cameras"),
        ("formats.new", "from lumigraph.methods.train import train"),
        ("unknown.new", ""),
    ],
)
def test_forbidden_imports_finds(module: str, source: str) -> None:
    assert forbidden_imports({**BASE, f"lumigraph.{module}": source})


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("methods.new", "from lumigraph.kernels import splat\nfrom lumigraph.wire.events import Event"),
        ("captures.new", "from lumigraph.kernels import descriptor_match"),
        ("formats.new", "from . import ply\nfrom .ply import read\nfrom lumigraph import __version__"),
        ("studio.new", "from lumigraph.formats import ply\nfrom lumigraph.wire.requests import Job"),
        ("live.new", "import lumigraph.wire.requests, lumigraph.scene.cameras"),
    ],
)
def test_forbidden_imports_allows(module: str, source: str) -> None:
    assert forbidden_imports({**BASE, f"lumigraph.{module}": source}) == []


def test_import_cycles_finds_cycle() -> None:
    assert import_cycles(BASE) == []
    cycle_sources = {
        "lumigraph.scene.a": "from lumigraph.scene import b",
        "lumigraph.scene.b": "from .c import x",
        "lumigraph.scene.c": "def late():\n    import lumigraph.scene.a",
        "lumigraph.scene.d": "import lumigraph.scene.a",
    }
    assert import_cycles({**BASE, **cycle_sources}) == [f"lumigraph.scene.{name}" for name in "abc"]


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn",
        "from torch import Tensor",
        "from safetensors.torch import save",
        "from lumigraph.scene.cameras import Cameras",
        "def late():\n    from lumigraph.formats import ply",
    ],
)
def test_torch_imports_finds_direct_and_indirect(source: str) -> None:
    assert torch_imports(BASE) == []
    assert torch_imports({**BASE, "lumigraph.jobs.new": source})
    assert torch_imports({**BASE, "lumigraph.wire": source, "lumigraph.jobs.new": "import lumigraph.wire.events"})


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import safe_load",
        "import joblib.numpy_pickle",
        "from torch import load",
        "torch.load(path)",
        "save = torch.save",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trust)",
        "np.load(path, None, True)",
    ],
)
def test_unsafe_reads_finds(source: str) -> None:
    assert unsafe_reads({"lumigraph.scene.new": source})


def test_unsafe_reads_allows_safe_load() -> None:
    source = "import torch, numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)\nnp.load(path, 'r', False)"
    assert unsafe_reads({"lumigraph.scene.new": source}) == []


def test_methods_have_no_special_case_elsewhere() -> None:
    names = set(METHODS)
    for module, source in package_sources().items():
        if subpackage(module) in ("methods", "kernels") or module == f"{PACKAGE}.studio.registry":
            continue
        names_in_code = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)} & names
        method_imports = {
            target for target, _ in imports(module, package_sources()) if target.startswith(f"{PACKAGE}.methods.")
        }
        assert not names_in_code, module
        assert method_imports <= {f"{PACKAGE}.methods.train", f"{PACKAGE}.methods.devices"}, module
