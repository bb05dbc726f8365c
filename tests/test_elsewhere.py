"""A run can be read where it was not made: other devices, modules and folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny

import maml_rl
from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.config.toml import load, parse
from maml_rl.runs.folder import read_config, read_metrics

HELPERS = Path(__file__).parent / "helpers"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(env="brought:Point", horizon=5), tmp_path_factory.mktemp("elsewhere") / "run", quiet=True)


def copied(run: Path, folder: Path, old: str, new: str) -> Path:
    other = Path(shutil.copytree(run, folder / "copy"))
    text = (other / "config.toml").read_text()
    assert old in text
    (other / "config.toml").write_text(text.replace(old, new))
    return other


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_of_a_gpu_is_read_where_there_is_none(run: Path, tmp_path: Path) -> None:
    expected = maml_rl.evaluate(run).returns
    other = copied(run, tmp_path, 'device = "auto"', 'device = "cuda"')
    np.testing.assert_array_equal(maml_rl.evaluate(other).returns, expected)
    with maml_rl.load(other) as agent:
        assert agent.learner.device.type == "cpu"
    with pytest.raises(InputError, match="torch finds no CUDA GPU here"):
        maml_rl.evaluate(other, device="cuda")
    assert read_config(other).device == "cuda"


def test_a_module_may_have_moved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (HELPERS / "brought.py").read_text()
    (tmp_path / "moved_module.py").write_text(code[: code.index("gymnasium.register(")])
    monkeypatch.chdir(tmp_path)
    other = copied(run, tmp_path, "brought:Point", "gone:Point")
    with pytest.raises(InputError, match="no module 'gone'"):
        maml_rl.evaluate(other)
    found = maml_rl.evaluate(other, env="moved_module:Point").returns
    np.testing.assert_array_equal(found, maml_rl.evaluate(run).returns)
    with maml_rl.load(other, env="moved_module:Point") as agent:
        assert agent.adapt([0.1, 0.2]).act([0.0, 0.0]).shape == (2,)


@pytest.mark.parametrize(("key", "value"), [("root", "/x"), ("data", "my:Data")])
def test_what_is_of_few_shot_learning_is_refused(key: str, value: str, run: Path) -> None:
    with pytest.raises(InputError, match=f"{key} = '{value}' has no effect on meta-RL"):
        maml_rl.evaluate(run, **{key: value})


@pytest.mark.parametrize("key", ["env", "worker_python"])
def test_what_is_of_meta_rl_is_refused(key: str, tmp_path: Path) -> None:
    few = meta_train(parse({"data": "sinusoid", "iterations": 1, "log_every": 1}, "few"), tmp_path / "few", quiet=True)
    with pytest.raises(InputError, match=f"{key} = 'x' has no effect on few-shot learning"):
        maml_rl.evaluate(few, **{key: "x"})


def test_a_folder_of_data_is_absolute_and_may_be_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, expected in (("omni", tmp_path / "omni"), ("~/omni", Path("/home/somebody/omni"))):
        config = parse({"data": "omniglot", "root": given}, "few")
        assert config.root == str(expected)  # type: ignore[union-attr]


def test_a_run_may_be_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = meta_train(tiny(iterations=1), "~/runs/x", quiet=True)
    assert made == tmp_path / "runs/x"
    assert not (tmp_path / "~").exists()
    assert maml_rl.evaluate("~/runs/x").returns.shape[0] == 3


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "marked.toml"
    file.write_bytes(b"\xef\xbb\xbf" + b'env = "navigation"\n')
    assert load(file).env == "navigation"  # type: ignore[union-attr]


def test_what_is_no_number_is_null_in_the_metrics(tmp_path: Path) -> None:
    """A gradient of 0, which rewards of 0 give, has no cosine with another."""
    config = tiny(env="test_elsewhere:Nothing", horizon=3, compare_gradients=1, iterations=1)
    made = meta_train(config, tmp_path / "run", quiet=True)
    text = (made / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "null" in text
    (row,) = read_metrics(made)
    assert any(np.isnan(value) for value in row.values())


class Nothing(maml_rl.TaskEnv):
    """Earns nothing, whatever is done."""

    horizon = 3
    from gymnasium.spaces import Box

    observation_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def sample_tasks(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(count, 1, generator=generator)

    def reset(self, tasks: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tasks)

    def step(self, action: torch.Tensor) -> maml_rl.Step:
        return maml_rl.Step.ongoing(torch.zeros_like(action), torch.zeros(len(action)))
