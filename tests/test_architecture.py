"""Who may import whom, and that importing the package stays quick."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "python" / "gpt_sovits_mlx"
# each part may import the parts of its own line and of the lines below it
LAYERS = [
    {"cli", "__main__"},
    {"arguments"},
    {"verify", "tune"},
    {"convert"},
    {"engine"},
    {"streaming"},
    {"vocoder", "result"},
    {"request"},
    {"voices"},
    {"encoders", "decoding"},
    {"weights"},
    {"models"},
    {"layers", "kernels"},
    {"audio", "settings"},
    {"runtime", "threads", "files", "quantization", "tuning"},
    {"errors"},
]
# what the line above forbids and the design wants all the same
ALLOWED = {("cli", "convert")}
HOLDERS = {"torch": {"convert"}, "transformers": set(), "coremltools": {"convert", "encoders"}, "fastapi": {"server"}}


def modules() -> list[tuple[str, Path]]:
    """(top-level part, file) of every module of the package."""
    return [
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py"
    ]


def imports(path: Path) -> set[tuple[str, ...]]:
    """Dotted names that a file imports anywhere, relative ones made absolute."""
    found = set()
    here = ("gpt_sovits_mlx", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            found |= {(*module, alias.name) for alias in node.names}
    return found


def rank(part: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if part in names), -1)


@pytest.mark.parametrize(("part", "path"), modules(), ids=lambda value: value.stem if isinstance(value, Path) else "")
def test_imports_point_downwards(part, path):
    for name in imports(path):
        for package, holders in HOLDERS.items():
            assert name[0] != package or part in holders, f"{path.name} imports {package}"
        if name[0] != "gpt_sovits_mlx" or len(name) < 2 or name[1] == part:
            continue
        other = name[1]
        if part == "text":
            assert other == "errors", f"text imports {other}"
        elif other not in ("text", "__version__") and (part, other) not in ALLOWED:
            assert rank(other) >= rank(part) >= 0, f"{part} imports {other}"


def module_of(path: Path) -> str:
    """Dotted name below the package; a package's own `__init__` has that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph() -> dict[str, set[str]]:
    """Which modules of the package each of them imports, wherever in the file, the package's own left out."""
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}
    edges: dict[str, set[str]] = {}
    for name, path in paths.items():
        dotted = {".".join(found[1:]) for found in imports(path) if found[0] == "gpt_sovits_mlx"}
        # what is imported is a module, or a name in one
        targets = {found if found in paths else found.rpartition(".")[0] for found in dotted}
        edges[name] = {target for target in targets if target in paths and target != name}
    return edges


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """A path along each circle of imports."""
    found, done = [], set[str]()

    def follow(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(edges[name]):
                follow(target, [*path, name])
            done.add(name)

    for name in sorted(edges):
        follow(name, [])
    return found


def test_no_modules_import_each_other():
    """Not even inside a part: a circle is what makes two files one."""
    edges = graph()
    assert len(edges) > 80 and sum(map(len, edges.values())) > 200
    assert not circles(edges)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def test_every_part_has_a_rank():
    known = {name for names in LAYERS for name in names} | {"text"}
    assert {part for part, _ in modules()} <= known


def test_text_and_the_package_load_neither_mlx_nor_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import gpt_sovits_mlx; took = time.perf_counter() - start;"
        "from gpt_sovits_mlx.text import TextFrontend; TextFrontend().utterances('你好, world.');"
        "print(took, [m for m in ('mlx.core', 'torch', 'coremltools', 'huggingface_hub') if m in sys.modules])"
    )
    fastest = math.inf
    for _ in range(3):  # the first one compiles, and other work comes between
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        took, loaded = output.split(maxsplit=1)
        assert loaded.strip() == "[]"
        fastest = min(fastest, float(took))
    assert fastest < 0.5
