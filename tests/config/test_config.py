"""A configuration says what is wrong with it: the key, the value, and what it should be."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from tiny import tiny

from maml_envs import InputError
from maml_rl.config import toml as configuration
from maml_rl.config.rl import Config
from maml_rl.config.toml import load, to_toml

VALID = {"env": "navigation"}


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        configuration.parse_toml(text, "my.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ("taks = 3", "taks", "there is no such key (given: 3); `maml-rl train --help` lists them"),
        ("outer.max_k = 1", "outer.max_k", "there is no such key (given: 1)"),
        ("inner = 3", "inner", "should be a valid dictionary or instance of Inner (given: 3)"),
        ("tasks = 0", "tasks", "should be greater than or equal to 1 (given: 0)"),
        ("episodes = -1", "episodes", "should be greater than or equal to 1 (given: -1)"),
        ("iterations = 0", "iterations", "should be greater than or equal to 1 (given: 0)"),
        ("horizon = 0", "horizon", "should be greater than or equal to 1 (given: 0)"),
        ("seed = -1", "seed", "should be greater than or equal to 0 (given: -1)"),
        ("seed = 4611686018427387904", "seed", "should be less than 4611686018427387904"),
        ("discount = 1.01", "discount", "should be less than or equal to 1 (given: 1.01)"),
        ("gae_lambda = -0.1", "gae_lambda", "should be greater than or equal to 0 (given: -0.1)"),
        ("inner.lr = 0.0", "inner.lr", "should be greater than 0 (given: 0.0)"),
        ("inner.lr = nan", "inner.lr", "should be a finite number (given: nan)"),
        ("inner.steps = -1", "inner.steps", "should be greater than or equal to 0 (given: -1)"),
        ("outer.max_kl = inf", "outer.max_kl", "should be a finite number (given: inf)"),
        ("outer.backtrack_ratio = 1.0", "outer.backtrack_ratio", "should be less than 1 (given: 1.0)"),
        ("policy.hidden = [8, 0]", "policy.hidden.1", "should be greater than 0 (given: 0)"),
        ("policy.hidden = 8", "policy.hidden", "should be a valid tuple (given: 8)"),
        ("policy.min_std = 0", "policy.min_std", "should be greater than 0 (given: 0)"),
        ("policy.observation_units = [1, 0]", "policy.observation_units.1", "should be greater than 0 (given: 0"),
        ("policy.observation_units = [-1]", "policy.observation_units.0", "should be greater than 0 (given: -1"),
        ("policy.observation_units = 5", "policy.observation_units", "should be a valid tuple (given: 5)"),
        ('tasks = "40"', "tasks", "should be a valid integer (given: '40')"),
        ("tasks = 40.0", "tasks", "should be a valid integer (given: 40.0)"),
        ("tasks = true", "tasks", "should be a valid integer (given: True)"),
        ('inner.lr = "0.1"', "inner.lr", "should be a valid number (given: '0.1')"),
        ("inner.first_order = 1", "inner.first_order", "should be a valid boolean (given: 1)"),
        ('inner.estimator = "lcv"', "inner.estimator", "should be 'log_prob', 'lvc' or 'dice' (given: 'lcv')"),
        (
            'baseline.name = "mlp"',
            "baseline.name",
            "should be 'linear', 'time', 'value_network' or 'none' (given: 'mlp')",
        ),
        ("device = 0", "device", "should be a valid string (given: 0)"),
    ],
)
def test_a_bad_value_is_named(line: str, key: str, problem: str) -> None:
    said = refusal(f'env = "navigation"\n{line}\n')
    first, found = said.split("\n")
    assert first == "my.toml is not a valid configuration:"
    assert found.startswith(f"  {key}: ")
    assert problem in found


def test_every_problem_is_named_at_once() -> None:
    said = refusal("tasks = 0\nouter.max_kl = -1.0\nnonsense = 1\n")
    assert "  env: Field required\n" in said + "\n"
    assert "\n  tasks: " in said
    assert "\n  outer.max_kl: " in said
    assert "\n  nonsense: " in said


@pytest.mark.parametrize(
    "line", ["workers = 2", "worker_timeout = 5.0", "vector_size = 8", "task_ranges = {g = [1, 2]}"]
)
def test_a_key_that_moved_says_where(line: str, tmp_path: Path) -> None:
    key, _, value = line.partition(" = ")
    given = "{'g': [1, 2]}" if key == "task_ranges" else value
    (tmp_path / "my.toml").write_text(f'env = "gymnasium:Pendulum-v1"\n{line}\n')
    for read in (lambda: load(tmp_path / "my.toml"), lambda: load("navigation", **{key: tomllib.loads(line)[key]})):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).split("\n")[1:] == [f"  {key}: it is vector.{key} now (given: {given})"]
    others = "vector.workers = 1\n" if key == "worker_timeout" else ""
    (tmp_path / "my.toml").write_text(f'env = "gymnasium:Pendulum-v1"\n{others}vector.{line}\n')
    assert getattr(load(tmp_path / "my.toml").vector, key) not in (None, {})


def numbers(model: type[BaseModel], table: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += numbers(field.annotation, f"{table}{name}.")
        elif field.annotation in (int, float, int | None):
            found.append((f"{table}{name}", field))
    return found


def test_every_number_has_a_lower_bound_and_is_described() -> None:
    found = numbers(Config)
    assert len(found) > 20
    for key, field in found:
        assert field.description, key
        assert {"ge", "gt"} & {bound for rule in field.metadata for bound in vars(type(rule))}, key


def test_a_whole_number_serves_where_a_fraction_may_stand() -> None:
    config = configuration.parse_toml('env = "navigation"\ninner.lr = 1\ndiscount = 1\n', "my.toml")
    assert (config.inner.lr, config.discount) == (1.0, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        Config(env="navigation"),
        tiny(preset="finn2017", policy={"hidden": []}, inner={"lr": 1e-7, "first_order": True}),
        tiny(policy={"observation_units": [1.0, 0.1]}),
        tiny(seed=2**62 - 1, env='my "own":Class', evaluation={"every": 3}),
    ],
)
def test_toml_and_back(config: Config) -> None:
    assert configuration.parse_toml(to_toml(config), "again") == config


def test_the_defaults_are_what_learned_soonest() -> None:
    config = Config(env="navigation")
    assert (config.tasks, config.episodes, config.iterations, config.seed) == (10, 20, 500, 1)
    assert (config.discount, config.gae_lambda, config.policy.hidden) == (0.99, 0.95, (64, 64))
    assert (config.inner.lr, config.inner.steps, config.inner.estimator) == (0.1, 1, "lvc")
    assert (config.outer.max_kl, config.outer.cg_iterations, config.outer.damping) == (0.1, 10, 0.1)
    assert (config.outer.backtracks, config.outer.backtrack_ratio, config.outer.fisher_subsample) == (15, 0.8, 3)
    assert config.evaluation.model_dump() == {
        "tasks": 40, "episodes": 20, "steps": 3, "every": 0, "film": False, "lr_after_first_step": 0.5
    }  # fmt: skip


PUBLISHED = ["navigation", "half_cheetah_dir", "half_cheetah_vel", "ant_dir", "ant_goal", "walker_vel"]


@pytest.mark.parametrize("name", [*PUBLISHED, "walker_rand_params", "hopper_rand_params"])
def test_the_files_of_the_papers_have_their_settings(name: str) -> None:
    config = load(name)
    assert isinstance(config, Config)
    assert (config.tasks, config.episodes) == (20 if name == "navigation" else 40, 20)
    assert (config.discount, config.gae_lambda, config.inner.estimator) == (0.99, 1.0, "log_prob")
    assert (config.outer.max_kl, config.outer.cg_iterations, config.outer.damping) == (0.01, 10, 1e-5)
    assert (config.outer.backtracks, config.outer.backtrack_ratio) == (15, 0.8)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config(env="navigation").tasks = 3  # type: ignore[misc]


@pytest.mark.parametrize("content", [b"env = ", b"[policy\n", b'env = "a"\nenv = "b"\n', b'env = "\xff"\n', b"\0"])
def test_what_is_not_toml_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"my\.toml is not a TOML file: \S+"):
        load(file)


def test_an_experiment_has_a_name_and_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half_cheetah_dir").mkdir()
    assert load("half_cheetah_dir").env == "half-cheetah-dir"
    (tmp_path / "navigation").write_text('env = "mine:Own"\n')
    assert load("navigation").env == "mine:Own"


def test_a_missing_configuration_lists_the_experiments() -> None:
    with pytest.raises(InputError, match=r"no configuration file 'navigate\.toml'.*half_cheetah_dir, .*navigation"):
        load("navigate.toml")


def test_load_with_changes_validates_them() -> None:
    changed = load("navigation", iterations=2, inner={"lr": 0.2})
    assert (changed.iterations, changed.inner.lr, changed.inner.estimator) == (2, 0.2, "log_prob")
    with pytest.raises(InputError, match="iteration: there is no such key"):
        load("navigation", iteration=2)


def test_a_near_experiment_is_offered() -> None:
    with pytest.raises(InputError, match=r"did you mean navigation\?"):
        load("navigaton")
