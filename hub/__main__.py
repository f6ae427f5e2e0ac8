"""Make the package folder that OptunaHub takes: package/samplers/mfas, under build/optunahub or a registry's checkout.

python -m hub [FOLDER]

`hub/mfas/` holds what is written by hand: what the package exports, its README, example and tests. Every module of
mfas_optuna that its exports need, found by following imports, is copied beside them with relative imports.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN = ROOT / "hub" / "mfas"
SOURCE = "mfas_optuna"
PACKAGE = Path("package", "samplers", "mfas")


def build(folder: Path) -> Path:
    """Write the package below a folder, in place of an earlier one, and return the package's own folder.

    Raises:
        SystemExit: An import cannot be made relative, or a library is imported that pyproject.toml does not require.
        subprocess.CalledProcessError: ruff found what it could not mend; it says so on the standard output.
    """
    files = {path.relative_to(WRITTEN): path for path in sorted(WRITTEN.rglob("*")) if path.suffix in (".py", ".md")}
    sources = {file: path.read_text(encoding="utf-8") for file, path in files.items()}
    waiting = [Path("__init__.py")]
    libraries: set[str] = set()
    while waiting:
        file = waiting.pop()
        relative, modules, imported = _with_relative_imports(sources[file], file)
        sources[file] = relative
        libraries |= imported
        for module in modules - sources.keys():
            sources[module] = (ROOT / SOURCE / module).read_text(encoding="utf-8")
            waiting.append(module)
    target = folder / PACKAGE
    if target.exists():
        shutil.rmtree(target)
    for file, text in sources.items():
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        (target / file).write_text(text, encoding="utf-8")
    shutil.copyfile(ROOT / "LICENSE", target / "LICENSE")
    (target / "requirements.txt").write_text("\n".join(_requirements(libraries)) + "\n", encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--quiet", "--no-cache", "--config", str(ROOT / "hub" / "registry_ruff.toml"), str(target)]
    subprocess.run([*ruff, "check", "--fix", *settings], check=True)
    subprocess.run([*ruff, "format", *settings], check=True)
    return target


def _with_relative_imports(source: str, file: Path) -> tuple[str, set[Path], set[str]]:
    """Return a module with relative imports, the files of SOURCE that it needs, and the libraries that it imports."""
    lines = source.splitlines(keepends=True)
    needed: set[Path] = set()
    libraries: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        else:
            continue
        roots = {module.partition(".")[0] for module in modules}
        if roots.isdisjoint({SOURCE, ""}):
            libraries |= roots - sys.stdlib_module_names
            continue
        line, absolute = node.lineno - 1, f"from {modules[0]} import"
        parts = modules[0].split(".")[1:]
        files = set(_files_of(parts, [alias.name for alias in node.names]))
        if isinstance(node, ast.Import) or node.level or not files or absolute not in lines[line]:
            raise SystemExit(
                f'{file}, line {node.lineno}: expected "from {SOURCE}.MODULE import NAME" or "from {SOURCE} import '
                f'MODULE", found {ast.unparse(node)!r}. Write it so.'
            )
        needed |= files
        lines[line] = lines[line].replace(absolute, f"from {_relative(parts, file.parent.parts)} import")
    return "".join(lines), needed, libraries


def _files_of(module: list[str], names: list[str]) -> Iterator[Path]:
    """Yield the files, relative to SOURCE, that importing these names from a module needs; not SOURCE's own."""
    for length in range(1, len(module) + 1):
        path = Path(*module[:length])
        yield path / "__init__.py" if (ROOT / SOURCE / path).is_dir() else path.with_suffix(".py")
    for name in names:
        path = Path(*module, name)
        if (ROOT / SOURCE / path).is_dir():
            yield path / "__init__.py"
        elif (ROOT / SOURCE / path).with_suffix(".py").is_file():
            yield path.with_suffix(".py")


def _relative(module: list[str], package: tuple[str, ...]) -> str:
    """Return how a module of a package names another module, both below SOURCE."""
    n_shared = 0
    while n_shared < min(len(module), len(package)) and module[n_shared] == package[n_shared]:
        n_shared += 1
    return "." * (len(package) - n_shared + 1) + ".".join(module[n_shared:])


def _requirements(libraries: set[str]) -> list[str]:
    """Return the lines of pyproject.toml that require these libraries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = {re.split(r"[^\w-]", line)[0]: line for line in project["dependencies"]}
    if unknown := libraries - lines.keys():
        raise SystemExit(
            f"The package imports {sorted(unknown)}, which pyproject.toml does not name among its dependencies. Name "
            "them there, or do without."
        )
    return [lines[library] for library in sorted(libraries)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hub", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "optunahub")
    print(build(parser.parse_args().folder))


if __name__ == "__main__":
    main()
