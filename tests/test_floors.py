# SPDX-License-Identifier: Apache-2.0
"""Imports run downward only; read from the syntax tree of every file, inside functions and under TYPE_CHECKING too.

The tables below are that of docs/architecture.md, which is compared with them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "pcvideo"

# "_" is every module of the ground but `_hub_client`.
FLOORS = {
    "cli": 5,
    "hub": 4, "training": 4, "convert": 4, "export": 4, "enhancement": 4,
    "models": 3, "losses": 3,
    "layers": 2, "metrics": 2, "data": 2, "viz": 2,
    "ops": 1, "rollout": 1, "video_io": 1,
    "_hub_client": 0, "_": 0,
}  # fmt: skip
MAY_IMPORT = {
    "cli": set(FLOORS) - {"cli"},
    "hub": {"models", "metrics", "viz", "_hub_client"},
    # Training is handed its model, its data and its pictures.
    "training": {"losses", "metrics", "rollout"},
    "convert": {"models"},
    "export": {"models", "layers", "rollout"},
    "enhancement": {"models", "video_io"},
    "models": {"layers", "ops", "rollout", "video_io", "_hub_client"},
    "losses": {"metrics", "ops"},
    "layers": {"ops"},
    "metrics": {"ops"},
    "data": {"video_io"},
    "viz": {"video_io"},
    "ops": set(),
    "rollout": set(),
    "video_io": set(),
    "_hub_client": set(),
    "_": set(),
}
# What may be imported when a module is; everything else (video, pictures, plots, progress bars) on first use.
LIGHT = {"torch", "numpy", "einops", "safetensors"}
HEAVY_PARTS_OF_LIGHT = ("torch.utils.tensorboard",)
GROUND = {"torch", "numpy", "safetensors"}
# What kernels share; like them it may import Triton, and only they may import it.
KERNEL_PARTS = "pcvideo.ops._triton"


class Import(NamedTuple):
    """One import: the dotted target, and whether it runs when its file is imported."""

    target: str
    line: int
    at_top: bool


class ImportReader(ast.NodeVisitor):
    """Collects a module's imports; `import_module`, `run_module` and `require` with a literal name count too."""

    def __init__(self, module: str, is_package: bool, known: set[str]) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.known = known
        self.found: list[Import] = []
        self.at_top = True

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        outside, self.at_top = self.at_top, False
        self.generic_visit(node)
        self.at_top = outside

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self.generic_visit(node)
            return
        outside, self.at_top = self.at_top, False
        for child in node.body:
            self.visit(child)
        self.at_top = outside
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            # `from pcvideo import _files` imports a module, `from pcvideo import MSPN` the whole package.
            submodule = f"{base}.{alias.name}"
            is_ours = base.split(".")[0] == "pcvideo"
            self.add(submodule if submodule in self.known or not is_ours else base, node)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in {"import_module", "__import__", "require", "run_module"} and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                self.add(target.value, node)
        self.generic_visit(node)

    def add(self, target: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(target, node.lineno, self.at_top))


def read_imports(root: Path) -> Iterator[tuple[Path, str, list[Import]]]:
    """Every file below the package folder `root`, with its dotted name and its imports."""
    files = sorted(root.rglob("*.py"))
    names = {file: ".".join(["pcvideo", *file.relative_to(root).with_suffix("").parts]) for file in files}
    names = {file: name.removesuffix(".__init__") for file, name in names.items()}
    for file, name in names.items():
        reader = ImportReader(name, file.name == "__init__.py", set(names.values()))
        reader.visit(ast.parse(file.read_text(encoding="utf-8"), str(file)))
        yield file, name, reader.found


def room_of(module: str) -> str:
    """The room of a dotted name of ours; "" is the package itself."""
    first = module.split(".")[1] if "." in module else ""
    if first == "__main__":
        return "cli"
    return "_" if first.startswith("_") and first not in FLOORS else first


def is_kernel(module: str) -> bool:
    """Whether this is the kernel of an op."""
    return module.startswith("pcvideo.ops.") and module.endswith(".kernel")


def complaint(module: str, found: Import) -> str | None:
    """What is wrong with an import in `module`, or None."""
    if found.target.split(".")[0] == "pcvideo":
        return complaint_inside(module, found)
    package = found.target.split(".")[0]
    if package in sys.stdlib_module_names or package == "__future__":
        return None
    room = room_of(module)
    if FLOORS.get(room) == 0:
        allowed = GROUND | ({"huggingface_hub"} if room == "_hub_client" else set())
        if package not in allowed:
            return f"the ground imports only {', '.join(sorted(allowed))}, not {package}"
    is_heavy = package not in LIGHT or found.target.startswith(HEAVY_PARTS_OF_LIGHT)
    may_import_triton = is_kernel(module) or module == KERNEL_PARTS
    if found.at_top and is_heavy and not (may_import_triton and package == "triton"):
        return f"{found.target} is heavy or optional: import it inside the function that needs it"
    return None


def complaint_inside(module: str, found: Import) -> str | None:
    """`complaint` for an import of ours."""
    room, other = room_of(module), room_of(found.target)
    for name in (module, found.target):
        if room_of(name) not in {"", *FLOORS}:
            return f"{name} is in no room of the table in docs/architecture.md"
    if room == "":
        return "the package itself does not import the command line" if other == "cli" else None
    if room == other:
        return complaint_in_room(module, found)
    if other == "":
        return None if room == "cli" else "import from the room itself, not from the package, which imports them all"
    if other != "_" and other not in MAY_IMPORT[room]:
        return refusal(room, other)
    belongs_to_ops = is_kernel(found.target) or found.target == KERNEL_PARTS
    return f"{found.target} belongs to the ops alone, a kernel to its own op alone" if belongs_to_ops else None


def refusal(room: str, other: str) -> str:
    """Why `room` does not import `other`."""
    return f"{room} may not import {other} (it may import: {', '.join(sorted(MAY_IMPORT[room])) or 'the ground'})"


def complaint_in_room(module: str, found: Import) -> str | None:
    """The two rules within a room: no model imports another, no op another op's kernel."""
    own, other = ((*name.split("."), "", "")[2] for name in (module, found.target))
    target = found.target
    if module.startswith("pcvideo.models.") and own not in {other, "_catalog"} and not other.startswith("_"):
        return f"no model imports another: move what {own} and {other or 'models'} share down to layers"
    if target == KERNEL_PARTS and not is_kernel(module):
        return f"{target} needs Triton: only kernels import it"
    if is_kernel(target):
        if own != other:
            return f"{target} belongs to its op alone"
        if found.at_top:
            return f"{target} needs Triton: import it inside the function that needs it"
    return None


def find_violations(root: Path) -> list[str]:
    """Every import that goes where it may not, as `file:line: module imports target: why`."""
    return [
        f"{file}:{found.line}: {module} imports {found.target}: {why}"
        for file, module, imports in read_imports(root)
        for found in imports
        if (why := complaint(module, found)) is not None
    ]


def test_imports_run_downward_only() -> None:
    violations = find_violations(SOURCE)
    assert not violations, "\n".join(violations)


def test_every_file_stands_in_a_room_of_the_table() -> None:
    modules = [module for _, module, _ in read_imports(SOURCE)]
    assert len(modules) > 20
    assert [module for module in modules if room_of(module) not in {"", *FLOORS}] == []


def test_the_table_itself_only_points_downward() -> None:
    assert FLOORS.keys() == MAY_IMPORT.keys()
    for room, others in MAY_IMPORT.items():
        assert all(FLOORS[other] < FLOORS[room] for other in others), room


def test_the_page_on_the_architecture_has_the_same_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found: dict[str, tuple[int, set[str]]] = {}
    for floor, rooms, others in re.findall(r"^\| ([1-5]) \| (.+?) \| (.+) \|$", page, re.MULTILINE):
        for room in set(re.findall(r"`(\w+)`", rooms)):
            found[room] = int(floor), set(re.findall(r"`(\w+)`", others))
    assert found.pop("cli")[0] == FLOORS["cli"]
    assert found == {room: (FLOORS[room], MAY_IMPORT[room]) for room in FLOORS if 0 < FLOORS[room] < FLOORS["cli"]}


PLANTED = {
    "upward": ("layers/a.py", "from pcvideo.models.mspn import MSPN", "layers may not import models"),
    "upward from the ground": ("_b.py", "import pcvideo.rollout", "_ may not import rollout"),
    "upward inside a function": ("layers/a.py", "def f():\n    import pcvideo.models.mspn", "may not import models"),
    "upward inside a method": (
        "layers/a.py",
        "class A:\n    async def f(self):\n        from pcvideo.models import mspn",
        "may not import models",
    ),
    "upward for types only": (
        "layers/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pcvideo.models.mspn import MSPN",
        "may not import models",
    ),
    "upward and relative": ("layers/a.py", "from ..models import mspn", "layers may not import models"),
    "upward from a folder's door": (
        "layers/__init__.py",
        "from ..models.mspn import M",
        "layers may not import models",
    ),
    "upward by name": ("layers/a.py", "import_module('pcvideo.models')", "layers may not import models"),
    "sideways on floor two": ("viz/a.py", "from pcvideo.metrics import mse", "viz may not import metrics"),
    "sideways on floor one": ("rollout.py", "from pcvideo import video_io", "rollout may not import video_io"),
    "training and models": ("training/a.py", "from pcvideo.models import MSPN", "training may not import models"),
    "training and data": ("training/a.py", "from pcvideo.data import x", "training may not import data"),
    "training and pictures": ("training/a.py", "from pcvideo.viz import x", "training may not import viz"),
    "a model and another": ("models/a.py", "from pcvideo.models.mspn import MSPN", "no model imports another"),
    "a model and another, relative": ("models/a.py", "from .mspn import MSPN", "no model imports another"),
    "a model and all others": ("models/a.py", "from pcvideo.models import MSPN", "no model imports another"),
    "the base and a model": ("models/_base.py", "from . import mspn", "no model imports another"),
    "another op's kernel": ("ops/a/op.py", "def f():\n    from pcvideo.ops.b import kernel", "its op alone"),
    "a layer and a kernel": ("layers/a.py", "def f():\n    from pcvideo.ops.b import kernel", "its own op alone"),
    "a layer and what kernels share": ("layers/a.py", "def f():\n    from pcvideo.ops import _triton", "the ops alone"),
    "what kernels share": ("ops/b/op.py", "def f():\n    from pcvideo.ops import _triton", "only kernels import it"),
    "an own kernel at once": ("ops/b/op.py", "from pcvideo.ops.b import kernel", "needs Triton"),
    "the package": ("losses/a.py", "from pcvideo import MSPN", "not from the package"),
    "the command line": ("__init__.py", "from pcvideo import cli", "does not import the command line"),
    "no room": ("shed/a.py", "import pcvideo.ops", "in no room"),
    "heavy at once": ("video_io/a.py", "import av", "heavy or optional"),
    "heavy in a class body": ("video_io/a.py", "class A:\n    from PIL import Image", "heavy or optional"),
    "heavy in a try": ("viz/a.py", "try:\n    import matplotlib\nexcept ImportError:\n    pass", "heavy or optional"),
    "heavy by name": ("viz/a.py", "plot = require('matplotlib.pyplot', purpose='x')", "heavy or optional"),
    "heavy part of torch": ("training/a.py", "from torch.utils.tensorboard import X", "heavy or optional"),
    "foreign to the ground": ("_b.py", "def f():\n    import av", "the ground imports only"),
    "transport elsewhere in the ground": ("_b.py", "def f():\n    import huggingface_hub", "the ground imports only"),
}
ALLOWED = {
    "downward": (
        "models/a.py",
        "from pcvideo.layers import x\nfrom ..ops import y\nfrom pcvideo import _files, rollout",
    ),
    "a model's base": ("models/a.py", "from pcvideo.models._base import Predictor\nfrom ._base import x"),
    "the list of models": ("models/_catalog.py", "from pcvideo.models.mspn import MSPN"),
    "a model in a folder": ("models/a/b.py", "from pcvideo.models.a.c import x\nfrom .c import y"),
    "an own kernel on first use": ("ops/b/op.py", "def f():\n    from pcvideo.ops.b import kernel"),
    "Triton in a kernel": ("ops/b/kernel.py", "import triton"),
    "what kernels share, in a kernel": ("ops/b/kernel.py", "from pcvideo.ops import _triton"),
    "heavy on first use": ("video_io/a.py", "def f():\n    import av\n    return require('PIL.Image', purpose='x')"),
    "heavy for types": ("viz/a.py", "import typing\nif typing.TYPE_CHECKING:\n    from PIL import Image"),
    "light": ("metrics/a.py", "import math, torch\nimport numpy as np\nfrom einops import rearrange"),
    "everything in the command line": ("cli/a.py", "import pcvideo\nfrom pcvideo import models, training, hub, _files"),
    "the command line as a module": ("__main__.py", "from pcvideo.cli.main import main"),
    "transport": ("_hub_client.py", "def f():\n    import huggingface_hub"),
}


def plant(folder: Path, place: str, text: str) -> Path:
    """A small package with `text` at `place`."""
    rooms = ("cli", "training", "models", "losses", "layers", "metrics", "data", "viz", "ops", "ops/b", "video_io")
    files = [f"{room}/__init__.py" for room in rooms]
    files += ["__init__.py", "hub.py", "rollout.py", "_files.py", "models/mspn.py", "models/_base.py"]
    for name, content in [
        *((file, "") for file in files),
        ("ops/b/kernel.py", ""),
        ("ops/_triton.py", "import triton"),
        ("models/a/c.py", ""),
        (place, text),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("place", "text", "why"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found_with_its_place(tmp_path: Path, place: str, text: str, why: str) -> None:
    violations = find_violations(plant(tmp_path, place, text))
    line = next(
        number for number, content in enumerate(text.splitlines(), 1) if "import " in content or "('" in content
    )
    line = text.count("\n") + 1 if "TYPE_CHECKING" in text else line
    assert len(violations) == 1
    assert why in violations[0]
    assert violations[0].startswith(f"{tmp_path / place}:{line}: ")


@pytest.mark.parametrize(("place", "text"), ALLOWED.values(), ids=ALLOWED.keys())
def test_what_the_table_allows_passes(tmp_path: Path, place: str, text: str) -> None:
    assert find_violations(plant(tmp_path, place, text)) == []
