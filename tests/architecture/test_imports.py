"""What each role loads: an API image without torch, a client without a server."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("search", "predictors", "service", "workers", "migrations")
SERVER_LIBRARIES = (
    "alembic",
    "celery",
    "fastapi",
    "numpy",
    "onnx",
    "onnxruntime",
    "redis",
    "scipy",
    "sqlalchemy",
    "starlette",
    "uvicorn",
)


def loaded_by(module: str) -> set[str]:
    """Top-level names in memory after an import in a fresh interpreter."""
    return {name.split(".")[0] for name in modules_after(module)}


def modules_after(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["service.api.app", "service.server"])
def test_the_api_loads_neither_torch_nor_optuna(module: str) -> None:
    heavy = {"torch", "optuna", "transformers", "onnxruntime", "safetensors", "workers"}
    assert not loaded_by(module) & heavy


def test_the_api_loads_no_part_of_scipy_until_a_predictor_is_fitted() -> None:
    assert not modules_after("service.api.app") & {"scipy.linalg", "scipy.optimize", "scipy.stats"}


@pytest.mark.parametrize(
    "module",
    [
        "service.client",
        "service.cli.program",
        "service.cli.verify",
        "service.embedded.embedded",
        "service.embedded.supervisor",
        "service.artifacts.verifying",
    ],
)
def test_the_client_loads_no_server_library(module: str) -> None:
    assert not loaded_by(module) & {*SERVER_LIBRARIES, "torch", "optuna", "workers", "predictors"}


@pytest.mark.parametrize(
    "module",
    [
        "search.space",
        "search.costs",
        "search.pareto",
        "search.errors",
        "search.families.registry",
        "search.model.checkpoint",
        "search.compress.teacher_facts",
        "search.data.dataset",
        "search.export.graph",
    ],
)
def test_the_nouns_of_the_search_need_no_torch(module: str) -> None:
    assert not loaded_by(module) & {"torch", "optuna", "sqlalchemy", "service"}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_this_repositorys_own(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / package / "__init__.py"


def test_no_init_file_imports_anything_when_it_is_loaded() -> None:
    """But for the words of annotations, where a package has a function of its own; and the SDK,
    which is imported as a whole, by its users."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert files
    for path in files:
        body = ast.parse(path.read_text()).body
        if path.parent == ROOT / "service" / "client":
            continue  # what it loads is held by the tests above
        may_define = path.parent.name in ("cli", "export")
        for node in body:
            assert isinstance(node, ast.Expr) or (may_define and _defines(node)), path


def _defines(node: ast.stmt) -> bool:
    """A function, or what only its annotations need."""
    if isinstance(node, ast.ImportFrom):
        return node.module in ("__future__", "pathlib", "typing")
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef)
