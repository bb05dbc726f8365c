"""The pages of docs/reference that the code writes, and the architecture's picture: ``make docs`` makes them.

They are in the repository, so that they can be read there too, and a test holds them to the code.
"""

import ast
import inspect
import math
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from architecture import picture
from pydantic.fields import FieldInfo
from tyro.conf import Positional

from maml_envs.catalogue import document as environments
from maml_rl.cli.main import commands
from maml_rl.cli.parse import Command, name_of, usage_of
from maml_rl.config.base import METHODS, Section, Whole, trait
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.results.published import Entry, Published, entries

DOCS = Path(__file__).parent
WIDTH = 120
MADE = "Made from the code by `make docs`."
LIMITS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
KINDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "table",
    tuple: "list",
    Path: "path",
}


def bullet(text: str) -> str:
    """Return an item of a list, wrapped."""
    text = text.replace("<", r"\<")
    return textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def written(value: object) -> str:
    """Return a value as a TOML file has it; None, which no file has, as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def kind_of(annotation: Any) -> str:  # noqa: ANN401  a type of any form
    """Return a type in words, such as "number, or None"."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{written(choice)}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [kind_of(part) for part in get_args(annotation) if part is not type(None)]
        return f"{' or '.join(parts)}, or None"
    if hasattr(annotation, "__metadata__"):
        return kind_of(annotation.__origin__)
    if get_origin(annotation) is tuple:
        inside = [part for part in get_args(annotation) if part is not Ellipsis]
        count = "" if Ellipsis in get_args(annotation) else f"{len(inside)} "
        return f"list of {count}{kind_of(inside[0])}s"
    return KINDS[get_origin(annotation) or annotation]


def limits_of(field: FieldInfo) -> str:
    """Return the range of a key, such as ", at least 1"."""
    rules = {type(rule): getattr(rule, type(rule).__name__.lower(), None) for rule in field.metadata}
    words = [f"{word} {_power(rules[kind])}" for kind, word in LIMITS.items() if kind in rules]
    return f", {' and '.join(words)}" if words else ""


def _power(bound: Any) -> str:  # noqa: ANN401  a number
    exponent = math.log2(bound) if bound > 0 else 0
    return f"2^{exponent:g}" if exponent > 20 else f"{bound:g}"


def keys_of(kind: type[Section], table: str = "") -> Iterator[str]:
    """Yield an item for each key of a table that is no table itself: its kind, default and meaning."""
    for key, field in kind.model_fields.items():
        if _section(field):
            continue
        default = "no default" if field.is_required() else f"default `{written(field.default)}`"
        resumes = " A resumed run may change it." if trait(field, "resumable") else ""
        meaning = (field.description or "").rstrip(".")
        yield bullet(
            f"**`{table}{key}`** ({kind_of(field.annotation)}{limits_of(field)}; {default}): {meaning}.{resumes}"
        )


def _section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def configuration() -> str:
    """Return the page of the configurations' keys."""
    parts = [
        "# Configuration keys",
        f"""Every key of a configuration, with its type, its default and what it does.
{MADE}

A configuration is a TOML file. A key of a table, such as `inner.lr`, is `lr` below `[inner]` there; on the command
line it is the flag `--inner.lr`, with `-` for every `_` (`--inner.learn-lr true`), and `maml-rl train --help` shows the
same list. A key whose default is None is left out of the file. A file with `data` is of few-shot learning, one with
`env` of meta-reinforcement learning. A number that has a unit says so; steps are control steps of the environment.

A key that is misspelt, of another type or out of its range is refused by name, and so are combinations that make no
sense. A run that is resumed must have the configuration that it began with, but for the keys that say otherwise.""",
    ]
    wholes: dict[str, type[Whole]] = {"Meta-reinforcement learning": Config, "Few-shot learning": FewShotConfig}
    for title, whole in wholes.items():
        parts += [f"## {title}", "\n".join(keys_of(whole))]
        for name, field in whole.model_fields.items():
            if section := _section(field):
                resumes = " A resumed run may change all of it." if trait(field, "resumable") else ""
                about = f"{field.description}.{resumes}"
                parts += [f"### `[{name}]`{_of(whole)}", about, "\n".join(keys_of(section, f"{name}."))]
    return "\n\n".join(parts) + "\n"


def _of(whole: type[Whole]) -> str:
    return " of few-shot learning" if whole is FewShotConfig else ""


def meanings_of(kind: type[Command]) -> dict[str, str]:
    """Return the meaning of each field of a command: what its type says of it, or the string below it."""
    found = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Command) and base is not Command:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, below in zip(body.body, [*body.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    said = below.value.value if _is_string(below) else ""  # type: ignore[union-attr]
                    found[field.target.id] = " ".join(str(said).split())
    for name, hint in get_type_hints(kind, include_extras=True).items():
        said = next((mark.help for mark in getattr(hint, "__metadata__", ()) if getattr(mark, "help", None)), None)
        found[name] = said or found[name]
    return found


def _is_string(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def flags_of(kind: type[Command], besides: type[Command] | None = None) -> Iterator[str]:
    """Yield an item for each argument and flag of a command that another one has not."""
    hints, meanings = get_type_hints(kind, include_extras=True), meanings_of(kind)
    for name, field in getattr(kind, "__dataclass_fields__", {}).items():
        marks = getattr(hints[name], "__metadata__", ())
        if name in ("config", "keys") or name in getattr(besides, "__dataclass_fields__", {}):
            continue
        called = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None)
        shown = called or name.upper() if Positional in marks else f"--{name.replace('_', '-')}"
        default = (
            "" if Positional in marks else "; required" if _required(field) else f"; default {_plain(field.default)}"
        )
        yield bullet(f"**`{shown}`** ({kind_of(hints[name])}{default}): {meanings[name].rstrip('.')}.")


def _required(field: Any) -> bool:  # noqa: ANN401  a dataclass's field
    return not isinstance(field.default, str | int | float | tuple | Path | bool | type(None))


def _plain(value: object) -> str:
    return "none" if value == () else f"`{value}`"


def commands_page() -> str:
    """Return the page of the commands."""
    parts = [
        "# Commands",
        f"""What each command of `maml-rl` does, with its arguments and flags; `maml-rl COMMAND --help` says the same.
{MADE}

`CONFIG` is a TOML file, or the name of one of the package's [experiments](../../experiments/README.md); `RUN` is a
folder that training wrote ([run folders](run_folder.md)). Commands exit with 0, with 2 for bad input, with 130 or 143
where SIGINT or SIGTERM stopped them, and with 1 where they say so below. `python -m maml_rl` is `maml-rl`, for
torchrun.""",
    ]
    for kind in commands().values():
        parts += [f"## {name_of(kind)}", f"```\nmaml-rl {usage_of(kind)}\n```", inspect.getdoc(kind) or ""]
        parts += ["\n".join(flags_of(kind))]
        if "keys" in kind.__dataclass_fields__:  # type: ignore[attr-defined]
            parts.append("And a flag for each [key of the configuration](configuration.md), which replaces the file's.")
        for more in kind.__subclasses__():
            parts += [f"*{(inspect.getdoc(more) or '').rstrip('.')}*:", "\n".join(flags_of(more, kind))]
    return "\n\n".join(part for part in parts if part) + "\n"


def published() -> str:
    """Return the page of published results."""
    parts = [
        "# Published results",
        f"""Results of others that `evaluate`, `compare` and `report` show beside a run's, with their sources.
{MADE} The numbers are in [published.toml](../../maml_rl/results/published.toml).

They are means over held-out tasks after so many gradient steps: returns, undiscounted sums over an episode, or of
few-shot learning mean squared errors. An oracle, which is told the task, takes no step. What is not published is left
empty. They stand beside runs of the same environment, preset and horizon alone; what else has to be alike before two
returns compare is in [what is compared with what](../explanation/comparisons.md).""",
    ]
    for entry in entries():
        parts += [f"## {_title(entry)}", f"Source: {entry.result.source}.", _values(entry.result)]
        if entry.result.others:
            others = ", ".join(f"{name} {value:g}" for name, value in entry.result.others)
            parts.append(textwrap.fill(f"Methods that are not in this package: {others}.", WIDTH))
    return "\n\n".join(parts) + "\n"


def _title(entry: Entry) -> str:
    of = entry.subject
    if "env" in of:
        return f"`{of['env']}`, preset {of['preset']}, {of['horizon']} steps"
    return f"`{of['data']}`, {of['shots']} shots, {of['measure']}"


def _values(result: Published) -> str:
    steps = range(max(len(result.of(method)) for method in METHODS))
    known = [k for k in steps if any(len(v := result.of(method)) > k and not math.isnan(v[k]) for method in METHODS)]
    lines = [["", *(f"{k} step{'s' * (k != 1)}" for k in known)], ["---"] * (len(known) + 1)]
    for name, method in METHODS.items():
        values = result.of(name)
        if values:
            lines.append([method.label, *(f"{values[k]:g}" if k < len(values) else "" for k in known)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


FILES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration,
    "reference/commands.md": commands_page,
    "reference/environments.md": environments,
    "reference/published.md": published,
    "images/architecture.svg": picture,
}
"""Makers of each page, by its place below docs/."""


def main() -> None:
    """Write them all."""
    for name, make in FILES.items():
        (DOCS / name).write_text(make())
        print(DOCS / name, file=sys.stderr)


if __name__ == "__main__":
    main()
