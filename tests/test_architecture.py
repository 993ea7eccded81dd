"""Who may import whom, and that start-up stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from edgecal.adapters import reference_builder

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = CHECKOUT / "edgecal"
COMPOSITION_ROOT: Final = PACKAGE / "cli" / "wiring"
HEAVY: Final = (
    "onnxruntime",
    "cv2",
    "onnx",
    "fabric",
    "paramiko",
    "tensorrt",
    "pycuda",
    "distributed",
    "sqlalchemy",
)

ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "core": ("edgecal.core", "edgecal.errors"),
    "workflows": (
        "edgecal",
        "edgecal.core",
        "edgecal.errors",
        "edgecal.ports",
        "edgecal.workflows",
    ),
    "adapters": ("edgecal.adapters", "edgecal.core", "edgecal.errors", "edgecal.ports"),
    "target_scripts": ("edgecal.adapters", "edgecal.core", "edgecal.errors"),
    "host_scripts": (),
}
WORLDLY: Final = {"os", "pathlib", "socket", "subprocess", "logging", "time", "random", "shutil"}


def modules(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def imports(path: Path, *, run_time: bool = False) -> set[str]:
    """Names of the modules a file imports; only those of run time if asked."""
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if (
            run_time
            and isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            skipped.update(inner for part in node.body for inner in ast.walk(part))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def inside(module: str, allowed: tuple[str, ...]) -> bool:
    return any(
        module == one or (one != "edgecal" and module.startswith(f"{one}.")) for one in allowed
    )


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_every_layer_imports_only_what_lies_to_its_right(layer: str) -> None:
    for path in modules(layer):
        ours = {name for name in imports(path) if name.split(".")[0] == "edgecal"}
        strangers = {name for name in ours if not inside(name, ALLOWED[layer])}
        assert not strangers, f"{path.name} imports {strangers}"


def test_the_core_knows_nothing_of_the_world() -> None:
    for path in modules("core"):
        names = {name.split(".")[0] for name in imports(path, run_time=True)}
        outside = names - set(sys.stdlib_module_names) - {"edgecal", "numpy", "packaging"}
        assert not outside, f"{path.name} imports {outside}"
        assert not names & WORLDLY, f"{path.name} imports {names & WORLDLY}"
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "open", "input"}, path.name


def test_only_the_composition_root_picks_adapters() -> None:
    for path in modules("cli"):
        if COMPOSITION_ROOT not in path.parents:
            picked = {name for name in imports(path, run_time=True) if ".adapters" in name}
            assert not picked, f"{path.name} imports {picked}"


def test_the_composition_root_imports_each_adapter_only_when_it_is_needed() -> None:
    for path in modules("cli/wiring"):
        at_once = [
            node
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        picked = [text for text in map(ast.unparse, at_once) if ".adapters" in text]
        assert not picked, f"{path.name}: {picked}"


def test_every_module_begins_with_a_sentence() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert text, path
        assert text.splitlines()[0].endswith("."), path


def test_the_reference_builder_takes_along_every_module_it_imports() -> None:
    taken = {f"edgecal/{name}" for name in reference_builder._MODULES}
    for name in taken:
        for module in imports(CHECKOUT / name, run_time=True):
            if module.split(".")[0] == "edgecal":
                file = module.replace(".", "/")
                assert {f"{file}.py", f"{file}/__init__.py"} & taken, f"{name} imports {module}"


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("push", "--help"),
        ("calibrate", "--help"),
        ("batches", "--help"),
        ("cache", "--help"),
        ("worker", "--help"),
    ],
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom edgecal.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', sorted(set(sys.modules) & set({[*HEAVY, 'numpy']!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
