"""Every file in experiments/ is a valid configuration, and one iteration of it runs from end to end."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from few_shot import write_omniglot
from tiny import rows

import maml_envs
import maml_rl
from maml_rl import supervised
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.toml import experiments, load

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))
FEW_SHOT = [file for file in FILES if "data" in tomllib.loads(file.read_text())]
REINFORCED = [file for file in FILES if file not in FEW_SHOT]


def test_every_file_is_an_experiment_by_its_name() -> None:
    assert REINFORCED
    assert FEW_SHOT
    assert experiments() == {file.stem: file for file in FILES}
    for file in FILES:
        assert load(file.stem) == load(file)


@pytest.mark.parametrize("file", REINFORCED, ids=lambda file: file.stem)
def test_it_states_its_environment_and_the_size_of_its_data(file: Path) -> None:
    config = load(file)
    assert isinstance(config, Config)
    assert config.env in maml_envs.names()
    assert config.preset in maml_envs.family(config.env).presets
    stated = tomllib.loads(file.read_text())
    assert set(stated) >= {"env", "preset", "horizon", "tasks", "episodes", "iterations", "policy", "inner"}


@pytest.mark.parametrize("file", REINFORCED, ids=lambda file: file.stem)
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
    result = maml_rl.evaluate(run)
    assert len(result.mean) == config.evaluation.steps + 1
    assert np.isfinite(result.mean).all()


@pytest.mark.parametrize("file", FEW_SHOT, ids=lambda file: file.stem)
def test_it_states_its_data_and_the_numbers_of_the_paper(file: Path) -> None:
    config, stated = load(file), tomllib.loads(file.read_text())
    assert isinstance(config, FewShotConfig)
    assert set(stated) >= {"data", "shots", "queries", "tasks", "iterations", "model", "inner", "outer", "evaluation"}
    numbers = (config.tasks, config.iterations, config.inner.lr, config.inner.steps, config.evaluation.steps)
    assert (config.outer.name, config.outer.lr, config.evaluation.tasks) == ("adam", 1e-3, 600)
    if file.stem.endswith("_plus"):
        levers = (config.inner.learn_lr, config.inner.lr_of, config.inner.lr_per_step, config.model.norm_per_step)
        assert (*levers, config.outer.schedule) == (True, "layer", True, True, "cosine")
        return
    assert (config.inner.first_order, config.inner.learn_lr) == (False, False)
    if config.data == "sinusoid":
        assert numbers == (25, 70_000, 0.01, 1, 10)
        assert (config.shots, config.queries, config.evaluation.shots, config.model.hidden) == (10, 10, 5, (40, 40))
        assert config.model.init == "truncated_normal"
        return
    assert config.model.batch_norm
    assert config.queries == config.shots
    assert numbers == ((32, 60_000, 0.4, 1, 3) if config.ways == 5 else (16, 60_000, 0.1, 5, 5))
    if config.model.name == "convolutional":
        assert file.stem == f"omniglot_{config.ways}way_{config.shots}shot"
        assert config.model.hidden == (64,) * 4
    else:
        assert config.model.hidden == (256, 128, 64, 64)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough characters for two ways, already read: only the first reading warns that they are not all."""
    root = write_omniglot(tmp_path_factory.mktemp("omniglot"), 30, 20)
    with pytest.warns(UserWarning, match="does not hold all of Omniglot"):
        supervised.omniglot(root, 2)
    return root


@pytest.mark.parametrize("file", FEW_SHOT, ids=lambda file: file.stem)
def test_one_iteration_of_few_shot_learning_runs(
    file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIGLOT_ROOT", str(images))
    config = load(file)
    assert isinstance(config, FewShotConfig)
    small = {
        "ways": 2, "tasks": 2, "iterations": 1, "log_every": 1, "threads": 1, "device": "cpu",
        "evaluation": config.evaluation.model_dump() | {"tasks": 2, "every": 1},
    }  # fmt: skip
    few = FewShotConfig.model_validate(config.model_dump() | small)
    run = maml_rl.meta_train(few, tmp_path / "run", quiet=True)
    (row,) = rows(run)
    assert np.isfinite(list(row.values())).all()
    result = maml_rl.evaluate(run)
    for name in result.values:
        mean = result.of(name).mean
        assert f"validation/{name}/{config.evaluation.steps}" in row
        assert len(mean) == config.evaluation.steps + 1
        assert np.isfinite(mean).all()


def test_the_tables_of_the_readme_are_made_from_the_results() -> None:
    make = str(Path(__file__).parents[2] / "experiments" / "make_readme.py")
    done = subprocess.run([sys.executable, make, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
