"""The source tree as the architecture tests read it: modules, their imports (function bodies too), their calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("orchestration", "models", "jobs", "cluster")


def modules() -> list[Path]:
    """Every Python file of our packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@cache
def parse(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), filename=str(module))


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import statement anywhere in the file, and of import_module with a literal name."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and called(node).rpartition(".")[2] in ("import_module", "__import__")
            and node.args
        ):
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)
            elif isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
                yield node.lineno, str(name.values[0].value).rstrip(".")


def _absolute(module: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.parent.parts[: len(module.parent.parts) - node.level + 1]
    return ".".join((*package, node.module or "")).rstrip(".")


def called(node: ast.Call) -> str:
    """`torch.load` of `torch.load(...)`, `?.eval` of `build(...).eval()`."""
    parts: list[str] = []
    callee: ast.expr = node.func
    while isinstance(callee, ast.Attribute):
        parts.append(callee.attr)
        callee = callee.value
    return ".".join(reversed([*parts, callee.id if isinstance(callee, ast.Name) else "?"]))
