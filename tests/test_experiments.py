"""Every file in experiments/ is a valid configuration, and one iteration of it runs from end to end."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from tiny import rows

import envs
import maml_rl
from maml_rl.config import Config
from maml_rl.config_file import experiments, load

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.toml"))


def test_every_file_is_an_experiment_by_its_name() -> None:
    assert FILES
    assert experiments() == {file.stem: file for file in FILES}
    for file in FILES:
        assert load(file.stem) == load(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_states_its_environment_and_the_size_of_its_data(file: Path) -> None:
    config = load(file)
    assert config.env in envs.names()
    assert config.preset in envs.family(config.env).presets
    stated = tomllib.loads(file.read_text())
    assert set(stated) >= {"env", "preset", "horizon", "tasks", "episodes", "iterations", "policy", "inner"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_one_iteration_runs(file: Path, tmp_path: Path) -> None:
    config = load(file)
    small = {
        "tasks": 2, "episodes": 2, "horizon": 5, "iterations": 1, "threads": 1, "device": "cpu",
        "evaluation": config.evaluation.model_dump() | {"tasks": 2, "episodes": 2, "every": 1},
    }  # fmt: skip
    run = maml_rl.meta_train(Config.model_validate(config.model_dump() | small), tmp_path / "run", quiet=True)
    (row,) = rows(run)
    assert np.isfinite(list(row.values())).all()
    assert {f"return/{config.inner.steps}", f"evaluation/{config.evaluation.steps}"} <= set(row)
    result, _ = maml_rl.evaluate(run)
    assert len(result.mean) == config.evaluation.steps + 1
    assert np.isfinite(result.mean).all()
