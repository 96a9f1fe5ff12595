"""The plan of the house, held by reading every import of the package without running it.

An import counts wherever it stands: at the top, in a function, under TYPE_CHECKING, or as a name handed to
import_module. The checks take a dictionary of sources, so that each is also shown a house that breaks its rule.
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
HOUSE = "lumigraph"

CRAFTS = {"captures", "methods", "completion", "extract", "formats", "live"}

# Who may import what beside its own room; "wire" stands for all modules in it, "wire.events" for that one.
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
RUNS_CODE_WHEN_READ = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}

Sources = Mapping[str, str]  # module name -> source text
Import = tuple[str, int]  # the module's full name, the line


def house() -> dict[str, str]:
    """Every module of the package; a package goes by its own name, its __init__ left out."""
    sources = {}
    for path in sorted((ROOT / HOUSE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return sources


def imports(name: str, sources: Sources) -> Iterator[Import]:
    """Everything that module `name` imports. `from a import b` means a.b where that is one of our modules, else a."""
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
                yield (inner if inner in sources or not base.startswith(HOUSE) else base), node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node.lineno


def ours(sources: Sources) -> dict[str, list[Import]]:
    """For each of our modules, which of our modules it imports, and where."""
    return {
        name: [(target, line) for target, line in imports(name, sources) if target.split(".")[0] == HOUSE]
        for name in sources
    }


def room(module: str) -> str:
    """'scene' of 'lumigraph.scene.cameras'; '' for the package itself, which holds the version and nothing else."""
    return module.split(".")[1] if "." in module else ""


def wrong_doors(sources: Sources) -> list[str]:
    """Imports that the plan does not allow, and rooms that it does not know."""
    found = []
    for name, targets in ours(sources).items():
        if room(name) and room(name) not in MAY_IMPORT:
            found.append(f"{name}: the plan has no room {room(name)!r}")
            continue
        for target, line in targets:
            inside = target.removeprefix(f"{HOUSE}.")
            allowed = MAY_IMPORT.get(room(name), set())
            if room(target) not in {room(name), "", *allowed} and inside not in allowed:
                found.append(f"{name}:{line} imports {target}")
    return found


def circles(sources: Sources) -> list[str]:
    """Modules that reach themselves by way of others."""
    graph = {name: {target for target, _ in targets} & set(sources) - {name} for name, targets in ours(sources).items()}
    return [name for name in graph if name in reached(graph, name)]


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """All that is reached from `start` by one step or more."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def torch_inside(sources: Sources) -> list[str]:
    """Modules of rooms without torch that import it, directly or through others of ours (and their packages)."""
    graph: dict[str, set[str]] = {}
    for name in sources:
        targets = {target for target, _ in imports(name, sources)}
        parents = {".".join(target.split(".")[:i]) for target in targets for i in range(1, target.count(".") + 1)}
        graph[name] = targets | (parents & set(sources))
    return [
        f"{name} reaches {target}"
        for name in sources
        if room(name) in WITHOUT_TORCH
        for target in sorted(reached(graph, name))
        if "torch" in target.split(".")
    ]


def unsafe_reads(sources: Sources) -> list[str]:
    """Ways of reading or writing files that can run what is in them."""
    found = []
    for name in sources:
        for target, line in imports(name, sources):
            if target.split(".")[0] in RUNS_CODE_WHEN_READ or target in ("torch.load", "torch.save"):
                found.append(f"{name}:{line} imports {target}")
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                found.append(f"{name}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.Call) and allows_pickle(node):
                found.append(f"{name}:{node.lineno} allows pickle")
    return found


def allows_pickle(call: ast.Call) -> bool:
    """Anything but a literal False for allow_pickle, by keyword or as np.load's third argument."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
    if ast.unparse(call.func) in ("np.load", "numpy.load"):
        given += call.args[2:3]
    return any(not (isinstance(value, ast.Constant) and value.value is False) for value in given)


# -- the house as it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [wrong_doors, circles, torch_inside, unsafe_reads])
def test_the_house_keeps_its_rules(broken: Callable[[Sources], list[str]]) -> None:
    sources = house()
    assert {f"{HOUSE}.wire.events", f"{HOUSE}.scene.cameras"} <= set(sources)  # it was really read
    assert broken(sources) == []


def test_rooms_do_not_re_export() -> None:
    """An empty __init__ keeps `import lumigraph.scene.errors` from loading anything else."""
    for path in (ROOT / HOUSE).rglob("__init__.py"):
        statements = [node for node in ast.parse(path.read_text("utf-8")).body if not isinstance(node, ast.Expr)]
        assert [ast.unparse(node).split(" = ")[0] for node in statements] in ([], ["__version__"]), path


def test_torch_stays_out_of_the_process() -> None:
    """The same rule as `torch_inside`, asked of Python itself; cli too, so that --help answers at once."""
    names = [name for name in house() if room(name) in {*WITHOUT_TORCH, "", "cli"}] + [f"{HOUSE}.scene.errors"]
    names.remove(f"{HOUSE}.jobs.migrations.env")  # a script of Alembic's, which alone can run it
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


# -- houses that break the rules -------------------------------------------------------------------------------------

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
        ("attic.new", ""),
    ],
)
def test_a_wrong_door_is_found(module: str, source: str) -> None:
    assert wrong_doors({**BASE, f"lumigraph.{module}": source})


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
def test_a_right_door_is_open(module: str, source: str) -> None:
    assert wrong_doors({**BASE, f"lumigraph.{module}": source}) == []


def test_a_circle_is_found() -> None:
    assert circles(BASE) == []
    round_about = {
        "lumigraph.scene.a": "from lumigraph.scene import b",
        "lumigraph.scene.b": "from .c import x",
        "lumigraph.scene.c": "def late():\n    import lumigraph.scene.a",
        "lumigraph.scene.d": "import lumigraph.scene.a",
    }
    assert circles({**BASE, **round_about}) == [f"lumigraph.scene.{name}" for name in "abc"]


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
def test_torch_is_found_near_and_far(source: str) -> None:
    assert torch_inside(BASE) == []
    assert torch_inside({**BASE, "lumigraph.jobs.new": source})
    assert torch_inside({**BASE, "lumigraph.wire": source, "lumigraph.jobs.new": "import lumigraph.wire.events"})


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
def test_an_unsafe_read_is_found(source: str) -> None:
    assert unsafe_reads({"lumigraph.scene.new": source})


def test_a_safe_read_is_not() -> None:
    source = "import torch, numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)\nnp.load(path, 'r', False)"
    assert unsafe_reads({"lumigraph.scene.new": source}) == []


def test_no_method_has_a_special_case_outside_its_own_file() -> None:
    names = set(METHODS)
    for module, source in house().items():
        if room(module) in ("methods", "kernels") or module == f"{HOUSE}.studio.registry":
            continue
        found = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)} & names
        named = {target for target, _ in imports(module, house()) if target.startswith(f"{HOUSE}.methods.")}
        assert not found, module
        assert named <= {f"{HOUSE}.methods.train", f"{HOUSE}.methods.devices"}, module
