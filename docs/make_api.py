"""Write docs/api.md, the reference of what can be imported, from the docstrings.

python docs/make_api.py            # write it
python docs/make_api.py --check    # fail when it is not what the docstrings say
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "api.md"
HEAD = """# What can be imported

Made from the docstrings by `python docs/make_api.py`. Shapes and units stand with the arguments. Programs that use
them: [python.md](python.md), [sampler.md](sampler.md), [quickstart.ipynb](quickstart.ipynb).
"""
PARTS = {
    "A study from start to end": ("mfas_optuna", ["FusionStudy", "FusionResult", "load_model"]),
    "The sampler": ("mfas_optuna", ["MFASSampler", "SearchSpace", "Architecture", "FusionLayer"]),
    "Pictures": ("mfas_optuna.visualization", None),
    "Errors": ("mfas_optuna.errors", None),
}
"""Title: module, and names in it; None: all that are public and made there."""


def reference() -> str:
    """Return the whole reference."""
    package = griffe.load("mfas_optuna", search_paths=[ROOT], docstring_parser="google", allow_inspection=False)
    lines = [HEAD]
    for title, (where, names) in PARTS.items():
        module = package[where.partition(".")[2]] if "." in where else package
        lines.append(f"## {title}\n\n`from {where} import ...`\n")
        for name in names or _public(module):
            lines.extend(_described(_resolved(module[name]), name, 3))
    return "\n".join(lines).rstrip() + "\n"


def _public(module: griffe.Object | griffe.Alias) -> list[str]:
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name for name, member in module.members.items() if isinstance(member, griffe.Class) and not name.startswith("_")
    ]


def _resolved(found: griffe.Object | griffe.Alias) -> griffe.Object:
    target = found.final_target if isinstance(found, griffe.Alias) else found
    if not target.has_docstring:
        raise SystemExit(f"{target.path} has no docstring.")
    return target


def _described(thing: griffe.Object, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    if isinstance(thing, griffe.Function):
        yield f"```python\n{_signature(thing, name)}\n```\n"
    elif isinstance(thing, griffe.Class) and isinstance(init := thing.members.get("__init__"), griffe.Function):
        yield f"```python\n{_signature(init, name)}\n```\n"
    yield from _text(thing)
    if not isinstance(thing, griffe.Class):
        return
    if isinstance(init := thing.members.get("__init__"), griffe.Function) and init.has_docstring:
        yield from _text(init)
    for member_name, member in thing.members.items():
        is_shown = member.is_function or (member.is_attribute and "property" in member.labels)
        if is_shown and not member_name.startswith("_") and member.has_docstring:
            yield from _described(_resolved(member), f"{name.rpartition('.')[2]}.{member_name}", level + 1)


def _signature(function: griffe.Function, name: str) -> str:
    parameters = [each for each in function.parameters if each.name not in ("self", "cls")]
    parts, has_star = [], False
    for each in parameters:
        if each.kind is griffe.ParameterKind.keyword_only and not has_star:
            parts.append("*")
            has_star = True
        text = each.name if each.annotation is None else f"{each.name}: {each.annotation}"
        parts.append(text if each.default is None else f"{text} = {each.default}")
    returns = "" if function.returns is None or function.name == "__init__" else f" -> {function.returns}"
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _text(thing: griffe.Object) -> Iterator[str]:
    """Yield a docstring's sections as Markdown."""
    if thing.docstring is None:
        return
    for section in thing.docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            yield f"{section.value}\n"
        elif section.kind is griffe.DocstringSectionKind.admonition:
            yield f"**{section.value.kind.capitalize()}:** {section.value.contents}\n"
        elif section.kind is griffe.DocstringSectionKind.raises:
            yield _listed("Raises", [(f"`{each.annotation}`", each.description) for each in section.value])
        elif section.kind in (griffe.DocstringSectionKind.returns, griffe.DocstringSectionKind.yields):
            yield f"**Returns:** {' '.join(_flat(each.description) for each in section.value)}\n"
        elif section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes):
            title = "Attributes" if section.kind is griffe.DocstringSectionKind.attributes else "Arguments"
            yield _listed(title, [(f"`{each.name}`", each.description) for each in section.value])
        else:
            raise SystemExit(f"{thing.path}: a section of kind {section.kind.value} has no form yet.")


def _listed(title: str, entries: list[tuple[str, str]]) -> str:
    return f"**{title}:**\n\n" + "".join(f"- {name}: {_flat(text)}\n" for name, text in entries)


def _flat(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    wanted = reference()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != wanted:
            raise SystemExit(f"{TARGET.relative_to(ROOT)} is not what the docstrings say: python docs/make_api.py")
    else:
        TARGET.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
