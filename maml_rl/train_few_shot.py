"""Meta-training of few-shot regression and classification."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.runs.loop import train
from maml_rl.supervised.learner import build
from maml_rl.supervised.method import FewShot


def meta_train(config: FewShotConfig, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; see ``maml_rl.runs.loop.train``."""
    return train(partial(build, config), FewShot, {config.seed: out}, resume, quiet, f"--resume --out {out}")[0]


def meta_train_seeds(
    config: FewShotConfig, outs: Mapping[int, Path | str], resume: bool = False, quiet: bool = False
) -> list[Path]:
    """Train several runs that differ in the seed alone, a row of each in turn; see ``maml_rl.runs.loop.train``."""
    return train(partial(build, config), FewShot, outs, resume, quiet, "--resume")
