"""Fill the tables of README.md from the run folders in results/.

python experiments/make_readme.py           # writes README.md
python experiments/make_readme.py --check   # exits with 1 where README.md is not what it would write
python experiments/make_readme.py --record RUN ... SCORE ...  # prints how soon runs reached scores after one step

A table stands between a line `<!-- runs: FOLDER ... -->`, folders below results/ with wildcards, and `<!-- end -->`.
One of how soon scores were reached stands after `<!-- record: FOLDER ... after 1 step: 364 728 -->`, one with a row for
each family of tasks after `<!-- families: FOLDER ... -->`, where a folder holds the runs of a family, of any method.
Commands are shown once: the tables after the first of the same runs have none.
"""

import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.results.comparison import GroupResult, comparisons
from maml_rl.results.published import Published
from maml_rl.results.record import record_table
from maml_rl.results.runs import grouped, read_runs
from maml_rl.results.table import Table, clock, costs, count, long_table
from maml_rl.runs.measures import MEASURES, number, shown, with_interval

HERE = Path(__file__).parent
WIDTH = 116
BESIDE = ("oracle", "pretrained", "random")
RECORD = re.compile(r"(<!-- record: (.*?) after (\d+) steps?: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
FAMILIES = re.compile(r"(<!-- families: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- runs: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def folders(patterns: str) -> list[Path]:
    """Run folders that the patterns name, in their order.

    Raises:
        SystemExit: A pattern names none.
    """
    found = []
    for pattern in patterns.split():
        matches = sorted((HERE / "results").glob(pattern))
        if not matches:
            sys.exit(f"README.md asks for runs {pattern}, and there are none in {HERE / 'results'}")
        found += matches
    return found


def commands(runs: Sequence[Path]) -> Iterator[str]:
    """Yield the command that trained each run, as the run itself says; several may say the same."""
    for run in runs:
        yield made_with(run)["command"]


def made_with(run: Path) -> dict[str, Any]:
    """Return what a run says of how and where it was made."""
    found: dict[str, Any] = tomllib.loads((run / "config.toml").read_text())["made_with"]
    return found


def machines(runs: Sequence[Path]) -> str:
    """Name the machines that the runs were on, and the commits of the code."""
    made = [made_with(run) for run in runs]
    on = sorted(
        {
            f"{m['platform']}, {m['threads']} thread{'s' * (m['threads'] > 1)}"
            for m in (each["machine"] for each in made)
        }
    )
    return f"{'; '.join(on)}; commits {', '.join(sorted({each['git_commit'][:7] for each in made}))}."


def block(patterns: str) -> str:
    """A table for each measure, with what made them."""
    runs = folders(patterns)
    tables = []
    for comparison in comparisons(grouped(read_runs(runs))):
        measure = "" if comparison.is_rl else f"{MEASURES[comparison.measure].label.capitalize()}:\n\n"
        tables.append(f"{measure}{long_table(comparison).markdown()}\n\n{filled(' '.join(costs(comparison)))}")
    return "\n\n".join([*tables, filled(machines(runs)), shell(runs)])


def filled(text: str) -> str:
    """Return a paragraph in lines that fit a document."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def shell(runs: Sequence[Path]) -> str:
    """Return the runs' commands as a block, in lines that fit a document."""
    lines = []
    for command in dict.fromkeys(commands(runs)):
        first, *others = textwrap.wrap(command, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
        lines.append(" \\\n    ".join([first, *others]))
    return "```\n" + "\n".join(lines) + "\n```\n"


def record(patterns: str, steps: int, targets: str, again: bool) -> str:
    """A table of how soon scores were reached, with what made the runs unless it is another table of the same ones."""
    runs = folders(patterns)
    table = record_table(runs, [float(target) for target in targets.split()], steps)
    if again:
        return f"{table}\n"
    on = sorted({made_with(run)["machine"]["platform"] for run in runs})
    return f"{table}\n\n{', '.join(on)}.\n\n{shell(runs)}"


def families(names: str) -> str:
    """A row for each family: what is published and what MAML reached here; then the same of the other methods."""
    header = ("task", "published", "seeds", "0 steps", "1 step", "3 steps", "unit", "steps", "time")
    rows, others, links, runs = [], [], [], []
    for folder in names.split():
        own = folders(f"{folder}/*s[0-9]*")
        groups = grouped(read_runs(own))
        config, comparison = groups[0].runs[0].config, comparisons(groups)[0]
        assert isinstance(config, Config)
        by_method, theirs = {row.method: row for row in comparison.rows}, comparison.published
        ours = by_method["maml"]
        before, after, last = (ours.points[k].mean for k in (0, 1, 3))
        means = [shown(before.value, "return"), with_interval(after, "return"), shown(last.value, "return")]
        said = " to ".join(shown(value, "return") for value in theirs.maml[:2]) if theirs else ""
        cost = (f"{ours.action_scale:g}", count(ours.env_steps), clock(ours.seconds))
        name = f"[{config.env} {config.preset}]"
        rows.append((name, said, str(len(ours.seeds)), *means, *cost))
        others += [(name, *beside(by_method, theirs))] if len(by_method) > 1 else []
        links.append(f"{name}: results/{folder}")  # on the site the report of its runs
        runs += own
    tables = [Table(header, tuple(rows)).markdown()]
    if others:
        heads = (f"{name} (published)" for name in ("gap closed", *BESIDE))
        tables.append(Table(("task", *heads), tuple(others)).markdown())
    return "\n\n".join([*tables, "\n".join(links), filled(machines(runs)), shell(runs)])


def beside(by_method: Mapping[str, GroupResult], theirs: Published | None) -> list[str]:
    """The gap that MAML's first step closed, and the other methods' returns, with the published value in brackets."""
    closed, published = by_method["maml"].points[1].gap_closed, theirs.gap_closed(1) if theirs else None
    cells = [both(number(closed.value) if closed else "", number(published) if published else "")]
    for method in BESIDE:
        k = 0 if METHODS[method].told else 1
        row, values = by_method.get(method), theirs.of(method) if theirs else ()
        ours = shown(row.points[k].mean.value, "return") if row else ""
        cells.append(both(ours, shown(values[k], "return") if k < len(values) else ""))
    return cells


def both(ours: str, published: str) -> str:
    """Write a value and the published one, either of which may be empty."""
    return f"{ours} ({published})".strip() if published else ours


def main() -> None:
    """Write README.md, or with --check say whether it is up to date."""
    if sys.argv[1:2] == ["--record"]:
        scores = [word for word in sys.argv[2:] if re.fullmatch(r"-?[0-9.]+", word)]
        print(record_table([Path(word) for word in sys.argv[2:] if word not in scores], [float(x) for x in scores], 1))
        return
    file = HERE / "README.md"
    before = file.read_text()
    seen: set[str] = set()

    def recorded(found: re.Match[str]) -> str:
        again = found[2] in seen
        seen.add(found[2])
        return f"{found[1]}{record(found[2], int(found[3]), found[4], again)}{found[5]}"

    now = RECORD.sub(recorded, before)
    now = FAMILIES.sub(lambda found: f"{found[1]}{families(found[2])}{found[3]}", now)
    now = BLOCK.sub(lambda found: f"{found[1]}{block(found[2])}{found[3]}", now)
    if "--check" in sys.argv[1:]:
        if now != before:
            sys.exit("experiments/README.md is not up to date: python experiments/make_readme.py")
    else:
        file.write_text(now)


if __name__ == "__main__":
    main()
