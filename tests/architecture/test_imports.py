"""Imports go one way: jobs -> orchestration -> models, jobs -> cluster. What is dangerous or heavy is imported where it is
said to be and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGES, ROOT, called, imports, modules, parse

MAY_IMPORT = {
    "jobs": {"jobs", "orchestration", "models", "cluster"},
    "orchestration": {"orchestration", "models"},
    "models": {"models"},
    "cluster": {"cluster"},
}
LINES = 400


def test_there_is_something_to_check() -> None:
    assert len(modules()) > 40
    assert {path.parts[0] for path in modules()} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    wrong = [
        f"{module}:{line}: {name}"
        for module in modules()
        if module.parts[0] == package
        for line, name in imports(module)
        if name.partition(".")[0] in {*PACKAGES, "tests", "benchmarks"} - MAY_IMPORT[package]
    ]
    assert not wrong, f"{package} may import {sorted(MAY_IMPORT[package])} of ours:\n" + "\n".join(wrong)


def test_the_walk_sees_imports_in_function_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is only as good as the walk: each way to import is found."""
    import tests.architecture.tree as tree

    (tmp_path / "models").mkdir()
    text = "def f():\n    import jobs.cli\n    from ..cluster import local\n    import importlib\n    importlib.import_module('orchestration.x')\n    importlib.import_module(f'jobs.{f}')\n"
    (tmp_path / "models" / "bad.py").write_text(text)
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    found = {name for _, name in tree.imports(Path("models/bad.py"))}
    assert {"jobs.cli", "cluster", "cluster.local", "orchestration.x", "jobs"} <= found


def test_only_the_zero_engine_imports_deepspeed() -> None:
    users = {
        str(module) for module in modules() for _, name in imports(module) if name.partition(".")[0] == "deepspeed"
    }
    assert users <= {"orchestration/training/zero.py"}, users


def test_models_need_neither_ray_nor_deepspeed() -> None:
    heavy = {"ray", "deepspeed", "mlflow", "datasets"}
    users = [
        f"{module}:{line}"
        for module in modules()
        if module.parts[0] == "models"
        for line, name in imports(module)
        if name.partition(".")[0] in heavy
    ]
    assert not users, users


def test_config_files_import_only_pydantic_and_the_standard_library() -> None:
    import sys

    wrong = []
    for module in (path for path in modules() if path.name == "config.py"):
        for line, name in imports(module):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "pydantic":
                continue
            if top in PACKAGES and (".config" in name or name in PACKAGES):
                continue  # one config built from another
            wrong.append(f"{module}:{line}: {name}")
    assert not wrong, wrong


def test_nothing_dangerous_is_loaded() -> None:
    """No pickle, no torch.load, no remote code, no unsafe YAML, no eval."""
    wrong = []
    for module in modules():
        wrong += [
            f"{module}:{line}: imports {name}"
            for line, name in imports(module)
            if name.partition(".")[0] in ("pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib")
        ]
        for node in ast.walk(parse(module)):
            if not isinstance(node, ast.Call):
                continue
            name = called(node)
            if name in (
                "torch.load",
                "eval",
                "exec",
                "yaml.unsafe_load",
                "yaml.full_load",
                "numpy.load",
                "np.load",
                "os.system",
            ) and not _safe(node, name):
                wrong.append(f"{module}:{node.lineno}: calls {name}")
            if name == "yaml.load" and not any(keyword.arg == "Loader" for keyword in node.keywords):
                wrong.append(f"{module}:{node.lineno}: yaml.load without a safe Loader")
            for keyword in node.keywords:
                if keyword.arg == "trust_remote_code" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    wrong.append(f"{module}:{node.lineno}: trust_remote_code")
    assert not wrong, "\n".join(wrong)


def _safe(node: ast.Call, name: str) -> bool:
    """`np.load` refuses pickles unless asked."""
    asked = [keyword for keyword in node.keywords if keyword.arg == "allow_pickle"]
    return name in ("np.load", "numpy.load") and all(
        isinstance(k.value, ast.Constant) and k.value.value is False for k in asked
    )


def test_no_file_is_too_long_to_read() -> None:
    long = {
        str(module): count
        for module in modules()
        if (count := (ROOT / module).read_text(encoding="utf-8").count("\n")) > LINES
    }
    assert not long, f"above {LINES} lines: {long}"


def test_every_file_opens_with_what_it_is_for() -> None:
    bare = [str(module) for module in modules() if not ast.get_docstring(parse(module))]
    assert not bare, f"no docstring: {bare}"


def test_tests_and_benchmarks_are_never_installed() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert sorted(project["tool"]["setuptools"]["packages"]["find"]["include"]) == sorted(
        f"{package}*" for package in PACKAGES
    )
