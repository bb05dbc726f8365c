"""The commands that list and check environments, or check the mathematics."""

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maml_envs import InputError
from maml_rl.cli.parse import Command, ConfigName, Keys, Positional, with_config
from maml_rl.config import toml
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig

EXIT_CANNOT_TELL = 3


class Envs(Command):
    """List the environments."""

    def run(self) -> None:
        from maml_envs.catalogue import Preset, catalogue

        table = Table(*Preset._fields, box=None, padding=(0, 1, 0, 0))
        for row in catalogue():
            table.add_row(*row)
        Console().print(table)


class Doctor(Command):
    """Look at what this machine and installation can do: versions, cores, GPU, films, extras, disk.

    Exits with 1 where training, or something of --need, cannot work.
    """

    need: tuple[str, ...] = ()
    """What has to work, such as gpu films onnx metaworld."""
    out: Path = Path("runs")
    """Where run folders will go."""

    def run(self) -> None:
        from maml_rl.machine.doctor import LOOKS, examine

        if unknown := [name for name in self.need if name not in LOOKS]:
            raise InputError(f"--need {unknown[0]}: give some of {', '.join(LOOKS)}")
        broken = False
        for finding in examine(self.out):
            broken |= finding.level == "wrong" or (finding.subject in self.need and finding.level != "ok")
            print(f"{finding.level:<8} {finding.subject}: {finding.said}", flush=True)
        sys.exit(int(broken))


class CheckEnv(Command):
    """Look for what would break or spoil training: each fault, with its fix. Exits with 1 if one would break it."""

    env: Positional[str]
    """A name, module:Class, gymnasium:ID, or a TOML file that has one with its other keys."""
    preset: str | None = None
    """Definition of the task family; None: the family's first."""

    def run(self) -> None:
        from maml_envs.check_env import Asked, examine
        from maml_rl.rl.learner import environments

        named = toml.load(self.env) if self.env.endswith(".toml") else Config(env=self.env)
        config = toml.of_kind(named, Config, self.env)
        config = config.model_copy(update={"preset": self.preset or config.preset})
        broken = False
        units = (1.0,) if config.policy.observation_units is None else config.policy.observation_units
        solves = config.baseline.name in ("linear", "value_network")
        asked = Asked(config.policy.network is not None, solves, units)
        for finding in examine(lambda: environments(config, copies=1)[0], asked):
            broken |= finding.level == "error"
            fix = f". {finding.fix}" if finding.fix else ""
            print(f"{finding.level:<8} {finding.subject}: {finding.said}{fix}", flush=True)
        sys.exit(int(broken))


class CheckGradients(Command):
    """Check the meta-gradient by finite differences: also the Fisher product; in float64. Exits with 1 if they differ.

    It samples 2 tasks and 4 episodes, whatever the file says, unless --tasks and --episodes are given. Flags replace
    the file's keys.
    """

    config: ConfigName
    keys: Keys[Config] = field(kw_only=True)

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "CheckGradients":
        def few(config: AnyConfig) -> Config:
            return toml.of_kind(config, Config, arguments[0]).model_copy(update={"tasks": 2, "episodes": 4})

        return with_config(cls, arguments, few)

    def run(self) -> None:
        from maml_rl.checks.gradients import TOLERANCE, check_gradients

        rows = check_gradients(self.keys)
        table = Table(title=f"{self.keys.env}: derivatives along random directions")
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


class CheckEstimators(Command):
    """Hold every estimator against exact meta-gradients: sample them on a random Markov decision process.

    Exits with 1 if a gradient is not what it should be, with 3 if it is too noisy to tell.
    """

    seed: int = 0
    """Of the task, the policy and the episodes."""
    states: int = 2
    """States of the process, the first being where episodes start."""
    actions: int = 2
    """Actions in each state."""
    horizon: int = 4
    """Steps in an episode."""
    lr: float = 2.0
    """Inner rate."""
    episodes: int = 1000
    """Episodes for each gradient and step."""
    repetitions: int = 200
    """Gradients to sample."""

    def run(self) -> None:
        from maml_rl.checks.estimators import check_estimators, problem

        random_task = problem(self.seed, self.states, self.actions, self.horizon, self.lr)
        rows = check_estimators(random_task, self.episodes, self.repetitions, self.seed)
        table = Table(title=f"meta-gradient, {self.states} states, {self.actions} actions, {self.horizon} steps")
        columns = ("estimator", "own value off the exact one", "sampled off its own value", "noise of one", "verdict")
        for column in columns:
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
