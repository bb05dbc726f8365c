"""The commands that check an environment, or the mathematics."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from maml_rl.cli.parse import CheckEnv, CheckEstimators, CheckGradients, parse, with_config
from maml_rl.config import toml
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig

EXIT_CANNOT_TELL = 3


def check_env(arguments: Sequence[str]) -> None:
    """``maml-rl check-env ENV``; exits with 1 where training would break."""
    from maml_envs.check_env import examine
    from maml_rl.rl.learner import environments

    chosen = parse(CheckEnv, arguments, "check-env")
    named = toml.load(chosen.env) if chosen.env.endswith(".toml") else Config(env=chosen.env)
    config = toml.of_kind(named, Config, chosen.env)
    config = config.model_copy(update={"preset": chosen.preset or config.preset})
    broken = False
    for found in examine(lambda: environments(config, copies=1)[0]):
        broken |= found.level == "error"
        print(f"{found.level:<8} {found.subject}: {found.said}{f'. {found.fix}' if found.fix else ''}", flush=True)
    sys.exit(int(broken))


def check_gradients(arguments: Sequence[str]) -> None:
    """``maml-rl check-gradients CONFIG ...``; exits with 1 where they disagree."""
    from maml_rl.checks.gradients import TOLERANCE, check_gradients

    def few(config: AnyConfig) -> CheckGradients:
        mine = toml.of_kind(config, Config, arguments[0])
        return CheckGradients(mine.model_copy(update={"tasks": 2, "episodes": 4}))

    chosen = with_config(few, arguments, "check-gradients")
    rows = check_gradients(chosen.config)
    table = Table(title=f"{chosen.config.env}: derivatives along random directions")
    for column in ("quantity", "direction", "computed", "finite difference", "relative difference"):
        table.add_column(column, justify="left" if column in ("quantity", "direction") else "right")
    for row in rows:
        mark = "" if row.agrees else "  <- differs"
        numbers = (f"{row.computed:.6g}", f"{row.difference:.6g}", f"{row.relative:.1e}{mark}")
        table.add_row(row.quantity, row.direction, *numbers)
    Console().print(table)
    bad = [f"{row.quantity} along {row.direction}" for row in rows if not row.agrees]
    if bad:
        print(f"more than {TOLERANCE:g} apart: {', '.join(bad)}", file=sys.stderr)
        sys.exit(1)


def check_estimators(arguments: Sequence[str]) -> None:
    """``maml-rl check-estimators ...``; exits with 1 where a gradient is not what it should be, 3 if too noisy."""
    from maml_rl.checks.estimators import check_estimators, problem

    chosen = parse(CheckEstimators, arguments, "check-estimators")
    random_task = problem(chosen.seed, chosen.states, chosen.actions, chosen.horizon, chosen.lr)
    rows = check_estimators(random_task, chosen.episodes, chosen.repetitions, chosen.seed)
    table = Table(title=f"meta-gradient, {chosen.states} states, {chosen.actions} actions, {chosen.horizon} steps")
    for column in ("estimator", "own value off the exact one", "sampled off its own value", "noise of one", "verdict"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for row in rows:
        sampled = f"{100 * row.error:.1f} % ± {100 * row.standard_error:.1f} %"
        table.add_row(row.name, f"{100 * row.bias:.2f} %", sampled, f"{100 * row.noise:.0f} %", row.verdict)
    Console().print(table)
    bad, noisy = ([row.name for row in rows if row.verdict == verdict] for verdict in ("differs", "too noisy"))
    if bad:
        print(f"sampled gradients are not near their own value: {', '.join(bad)}", file=sys.stderr)
    if noisy:
        print(f"too noisy to tell: {', '.join(noisy)}; more --repetitions or --episodes", file=sys.stderr)
    if bad or noisy:
        sys.exit(1 if bad else EXIT_CANNOT_TELL)
