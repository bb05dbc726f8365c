"""`maml-rl export` writes the policy that an agent adapts to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Command, tiny

import maml_rl
from maml_rl import InputError, meta_train


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it will change in itself
def test_the_command_writes_what_act_does(tmp_path: Path, command: Command) -> None:
    run = meta_train(tiny(), tmp_path / "run", quiet=True)
    file = tmp_path / "new" / "policy.pt2"
    code, out, err = command("export", str(run), "--task", "0.3", "-0.2", "--out", str(file))
    assert (code, out.strip()) == (0, str(file)), err
    with maml_rl.load(run) as trained:
        expected = trained.adapt([0.3, -0.2]).act(np.ones((4, 2), np.float32), deterministic=True)
    found = torch.export.load(file).module()(torch.ones(4, 2)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    code, _, err = command("export", str(run), "--task", "0.3", "--out", str(tmp_path / "other.pt2"))
    assert code == 2
    assert "a task of navigation has shape (2,), not (1,)" in err
    code, _, err = command("export", str(run), "--task", "0.3", "-0.2", "--out", str(file))
    assert code == 2
    assert "is there already" in err


RANGES = {"task_ranges": {"m": (0.5, 2.0), "g": (5.0, 15.0)}}


@pytest.mark.filterwarnings("ignore:.*torch")
@pytest.mark.parametrize(
    ("words", "task"),
    [(["m=1", "g=12"], [12.0, 1.0]), (["g=12", "m=1"], [12.0, 1.0]), (["12", "1"], [12.0, 1.0])],
)
def test_a_task_of_ranges_goes_by_name_or_in_alphabetical_order(
    words: list[str], task: list[float], tmp_path: Path, command: Command
) -> None:
    run = meta_train(tiny(env="gymnasium:Pendulum-v1", horizon=5, vector=RANGES), tmp_path / "run", quiet=True)
    code, _, err = command("export", str(run), "--task", *words, "--out", str(tmp_path / "p.pt2"))
    assert (code, err) == (0, "")
    with maml_rl.load(run) as trained:
        assert trained._row(
            {n: float(v) for n, v in (w.split("=") for w in words)} if "=" in words[0] else task
        ).tolist() == [task]
        expected = trained.adapt(task).act(np.ones((4, 3), np.float32), deterministic=True)
    found = torch.export.load(tmp_path / "p.pt2").module()(torch.ones(4, 3)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m=1"], "a task by the keys m: give g, m"),
        (["m=1", "l=2"], "a task by the keys m, l: give g, m"),
        (["m=1", "2"], "--task m=1 2: give numbers, or each as name=number"),
        (["m=1", "m=2"], "--task m=1 m=2: give each name once"),
        (["heavy"], "--task heavy: give numbers, or each as name=number"),
    ],
)
def test_a_task_that_is_none_is_named(words: list[str], said: str, tmp_path: Path, command: Command) -> None:
    run = meta_train(tiny(env="gymnasium:Pendulum-v1", horizon=5, vector=RANGES), tmp_path / "run", quiet=True)
    code, _, err = command("export", str(run), "--task", *words, "--out", str(tmp_path / "p.pt2"))
    assert (code, err.strip()) == (2, f"error: {said}")


def test_a_task_beyond_its_range_is_warned_of(tmp_path: Path) -> None:
    run = meta_train(tiny(env="gymnasium:Pendulum-v1", horizon=5, vector=RANGES), tmp_path / "run", quiet=True)
    with maml_rl.load(run) as trained, pytest.warns(UserWarning, match=r"g = -3 is outside \[5, 15\], which was"):
        trained.adapt([-3.0, 1.0])


def test_without_ranges_a_task_has_no_names(tmp_path: Path) -> None:
    said = "a task by the keys x: give a row of numbers"
    with maml_rl.load(meta_train(tiny(), tmp_path / "run", quiet=True)) as agent, pytest.raises(InputError, match=said):
        agent.adapt({"x": 1.0})
