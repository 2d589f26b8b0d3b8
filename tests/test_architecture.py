"""The order of the house: what may import what, and what importing the library costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "ntktheory"
ORDER = (
    "checks",
    "files",
    "functional",
    "calls",
    "probes",
    "ntk",
    "paths",
    "estimators",
    "pruning",
    "models",
    "data",
    "store",
    "training",
    "information",
    "sweep",
    "cli",
)
OUTSIDE = {"proofs_check", "figures", "benchmarks", "tests"}
HEAVY = ("scipy", "sklearn", "sympy", "hypothesis", "matplotlib", "ray")


def imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every absolute module or member name that ``module`` imports, lazily or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What ``module`` imports against the order."""
    parts = module.split(".")
    found = []
    for name in imported(source, module, is_package=is_package):
        target = name.split(".")
        if target[0] in OUTSIDE:
            found.append(f"{module} imports {name}")
        if target[0] != PACKAGE or len(parts) == 1:
            continue
        unit, other = parts[1], target[1] if len(target) > 1 else None
        if other not in ORDER:
            found.append(
                f"{module} imports {name}, which is the package itself or not in the order"
            )
        elif other != unit and ORDER.index(other) > ORDER.index(unit):
            found.append(f"{module} imports {name}, which stands after it")
        slow = any(part.startswith("reference") for part in target)
        if slow and not parts[-1].startswith(("__init__", "reference")):
            found.append(f"{module} imports {name}, a slow reference")
    return found


def modules() -> list[tuple[str, Path]]:
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [(".".join(f.relative_to(ROOT).with_suffix("").parts), f) for f in files]


@pytest.mark.parametrize(("name", "file"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_follow_the_order(name: str, file: Path) -> None:
    is_package = file.name == "__init__.py"
    module = name.removesuffix(".__init__")
    if len(module.split(".")) > 1:
        assert module.split(".")[1] in ORDER
    assert violations(file.read_text(encoding="utf-8"), module, is_package=is_package) == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ntktheory.paths import bounds", "ntktheory.ntk.kernel"),
        ("from ntktheory import paths", "ntktheory.ntk.kernel"),
        ("from ..paths import bounds", "ntktheory.ntk.kernel"),
        ("def f():\n    import ntktheory.cli", "ntktheory.ntk.kernel"),
        ("from ntktheory import empirical_ntk", "ntktheory.paths.bounds"),
        ("import proofs_check.ledger", "ntktheory.paths.bounds"),
        ("from ntktheory.ntk.reference import ntk", "ntktheory.ntk.kernel"),
        ("from . import reference", "ntktheory.ntk.kernel"),
        ("from ntktheory.calls import record", "ntktheory.functional"),
    ],
)
def test_a_wrong_import_is_noticed(source: str, module: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ntktheory.ntk import kernel", "ntktheory.paths.bounds"),
        ("from .kernel import f", "ntktheory.ntk.trace"),
        ("from ..checks import check_choice\nimport torch", "ntktheory.ntk.trace"),
    ],
)
def test_a_right_import_is_allowed(source: str, module: str) -> None:
    assert not violations(source, module)


def test_importing_the_library_loads_nothing_heavy() -> None:
    code = (
        "import sys, torch, torch.func\n"
        f"heavy = {HEAVY!r}\n"
        "before = {name for name in heavy if name in sys.modules}\n"
        f"import {PACKAGE}\n"
        "print(*sorted({name for name in heavy if name in sys.modules} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
