"""check-env finds each fault, names it with its fix, and finds nothing in what is sound."""

import sys
from pathlib import Path

import brought
import gym_probes
import gymnasium
import numpy as np
import pytest
import torch
from probes import Good

import maml_envs
from maml_envs import GymnasiumTaskEnv, VectorOptions
from maml_envs.check_env import Asked, Finding, examine
from maml_rl.cli import main


def said(make) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(make)}


@pytest.mark.parametrize("name", ["navigation", "half-cheetah-vel", "bandit", "tabular-mdp"])
def test_our_own_environments_are_sound(name: str) -> None:
    findings = said(lambda: maml_envs.make(name))
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert len(findings) == 11


def test_a_sound_gymnasium_environment_and_its_endings() -> None:
    findings = said(lambda: GymnasiumTaskEnv(gym_probes.Counted))
    assert {finding.level for finding in findings.values()} == {"ok"}
    tasks = GymnasiumTaskEnv(gym_probes.Counted).sample_tasks(8, torch.Generator().manual_seed(0))[:, 0].tolist()
    terminated, truncated = sum(g in (2, 4) for g in tasks), sum(g in (-3, -5) for g in tasks)
    assert f"of 8 episodes of random actions {terminated} terminated, {truncated} were" in findings["endings"].said
    assert terminated > 0 < truncated


@pytest.mark.parametrize(
    ("kind", "level", "subject", "words"),
    [
        (gym_probes.Unseeded, "error", "determinism", "super().reset(seed=seed)"),
        (gym_probes.Remembers, "error", "independence", "in reset"),
        (gym_probes.Shared, "error", "neighbours", "not in the class"),
        (gym_probes.Deaf, "warning", "tasks", "Use the task in the reward or the dynamics"),
        (gym_probes.TimeLimit, "warning", "endings", "return truncated"),
        (gym_probes.Bounded, "warning", "observation space", "numbers [0, 1, 3] of the observation"),
        (gym_probes.Explodes, "error", "rewards", "NaN or infinity"),
    ],
)
def test_a_fault_is_found_with_its_fix(kind: type, level: str, subject: str, words: str) -> None:
    findings = said(lambda: GymnasiumTaskEnv(kind))
    assert findings[subject].level == level
    assert words in f"{findings[subject].said} {findings[subject].fix}"
    assert all(finding.fix for finding in findings.values() if finding.level != "ok")
    if level == "error":  # and nothing else is blamed
        assert [name for name, finding in findings.items() if finding.level == "error"] == [subject]


def test_a_batched_environment_whose_rows_mix() -> None:
    class Mixes(Good):
        def sample_tasks(self, count, generator):
            return torch.rand(count, 1, generator=generator)

        def reset(self, tasks, seeds):
            self.mean, self.count = tasks.mean(), 0
            return torch.zeros(len(seeds), 3)

        def step(self, action):
            return super().step(action)._replace(reward=action.sum(-1) - self.mean)

    assert said(Mixes)["neighbours"].level == "error"


def test_a_broken_contract_ends_the_report() -> None:
    class Wrong(Good):
        def step(self, action):
            return super().step(action)._replace(reward=torch.zeros(1))

    (finding,) = said(Wrong).values()
    assert (finding.level, finding.subject) == ("error", "contract")
    assert "Step.reward has shape (1,)" in finding.said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gym_probes:Counted"], 0, "ok       determinism: "),
        (["gym_probes:Deaf"], 0, "warning  tasks: "),
        (["gym_probes:Unseeded"], 1, "error    determinism: "),
        (["half-cheetah-dir", "--preset", "finn2017"], 0, "observation Box(-inf, inf, (20,), float32), action"),
        (["pendulum.toml"], 0, "(3,), float32), action Box(-2.0, 2.0, (1,), float32), horizon 30"),
        (["gymnasium:Pendulum-v1"], 2, "Give ranges of its attributes in [vector.task_ranges]"),
        (["navigatoin"], 2, "did you mean navigation?"),
    ],
)
def test_the_command(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    text = 'env = "gymnasium:Pendulum-v1"\nhorizon = 30\n[vector.task_ranges]\ng = [5, 15]\n'
    (tmp_path / "pendulum.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["maml-rl", "check-env", *arguments])
    with pytest.raises(SystemExit) as stop:
        main.main()
    out, err = capsys.readouterr()
    assert stop.value.code == code
    assert words in out + err


def test_the_table_of_environments(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["maml-rl", "envs"])
    main.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["name", "preset", "task", "observation", "action", "horizon", "beyond"]
    assert ["half-cheetah-dir", "finn2017", "1", "20", "6", "200", "no"] in lines
    assert ["tabular-mdp", "duan2016", "10", "x", "5", "x", "11", "10", "one", "of", "5", "10", "no"] in lines
    assert [line[:2] for line in lines[1:]] == [[n, p] for n in maml_envs.names() for p in maml_envs.family(n).presets]


class FourValues(gym_probes.Counted):
    """Gym's step of old."""

    def step(self, action):
        return super().step(action)[:4]


class OtherShape(gym_probes.Counted):
    """An observation that its space does not have."""

    def see(self, action):
        return super().see(action)[:2]


class Raises(gym_probes.Counted):
    """The client of a simulator that hangs up in the third step."""

    def step(self, action):
        if self.count == 2:
            raise ConnectionResetError("my simulator hung up")
        return super().step(action)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FourValues, "step returned 4 values: return (observation, reward, terminated, truncated, info)"),
        (OtherShape, "and observation_space (4,): return it in that shape"),
        (Raises, "ConnectionResetError: my simulator hung up"),
    ],
)
def test_an_environment_that_raises_is_a_finding(kind: type, words: str) -> None:
    findings = list(examine(lambda: GymnasiumTaskEnv(kind)))
    assert findings[-1].level == "error"
    assert words in findings[-1].said


class KeepsSomething(brought.Point):
    """A third party's simulator: one in eight starts depends on whether it has been used before."""

    used = False

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed, options=options)
        if self.used and self.goal[0] > 0.7:
            self.x = self.x + 0.1
        self.used = True
        return self.seen(), info


def test_what_depends_on_history_is_not_blamed_on_its_neighbours() -> None:
    findings = said(lambda: GymnasiumTaskEnv(KeepsSomething, VectorOptions(vector_size=8)))
    assert [name for name, finding in findings.items() if finding.level == "error"] == ["independence"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(), {"observation scale": "[0, 1, 2, 3, 4] and 3,067 more", "baseline": "3,072 numbers"}),
        (Asked(own_network=True), {"baseline": "3,072 numbers"}),
        (Asked(own_network=True, solves=False), {}),
    ],
)
def test_pictures_are_judged_by_what_gets_them(asked: Asked, expected: dict[str, str]) -> None:
    class Bright(brought.Point):
        observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)

        def seen(self):
            return np.full((32, 32, 3), 200 + int(5 * self.x[0]), np.uint8)

    findings = {finding.subject: finding for finding in examine(lambda: GymnasiumTaskEnv(Bright), asked)}
    warned = {name: finding for name, finding in findings.items() if finding.level == "warning"}
    assert warned.keys() == expected.keys()
    for name, words in expected.items():
        assert words in warned[name].said
    assert "Box(0, 255, (32, 32, 3), uint8), action Box(-1.0, 1.0, (2,), float32)" in findings["contract"].said
    if "observation scale" in warned:
        assert "Give policy.network a network for pictures" in warned["observation scale"].fix


@pytest.mark.parametrize(
    ("units", "level", "words"),
    [
        ((1.0,), "warning", "numbers [1] of the observation are as large as 1e+03"),
        ((1.0, 1000.0), None, ""),
        ((1000.0,), None, ""),
        ((1.0, 1.0, 1000.0), "error", "3 numbers, and an observation has 2"),
    ],
)
def test_a_large_observation_is_fit_in_its_units(units: tuple[float, ...], level: str | None, words: str) -> None:
    class Far(brought.Point):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

        def seen(self):
            return np.array([self.x[0], 1000 + self.x[1]], np.float32)

    findings = {finding.subject: finding for finding in examine(lambda: GymnasiumTaskEnv(Far), Asked(units=units))}
    of_units = findings.get("policy.observation_units", findings.get("observation scale"))
    assert (None if of_units is None else of_units.level) == level
    if of_units is not None:
        assert words in of_units.said
    if level == "warning":
        assert "Give policy.observation_units their usual size" in findings["observation scale"].fix


def test_both_flags_at_once_are_an_ending() -> None:
    """As gymnasium's TimeLimit gives them, or an old `done` given twice: a time limit should be truncated alone."""

    class Both(brought.Point):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, self.t == 5, self.t == 5, info

    findings = said(lambda: GymnasiumTaskEnv(Both))
    assert findings["endings"].level == "warning"
    assert "every episode terminated after exactly 5 steps" in findings["endings"].said


def test_a_folder_that_hides_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hides").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        maml_envs.InputError, match=r"hides \(the folder .*/hides, which is found before a file of that"
    ):
        maml_envs.make("hides:Mine")


def test_limits_of_many_numbers_are_said_in_brief() -> None:
    class Bounded(brought.Point):
        observation_space = gymnasium.spaces.Dict(
            {
                "each": gymnasium.spaces.Box(np.array([-1.0, -np.inf, 0.0], "f"), np.array([1, 2, 3.5], "f")),
                "all": gymnasium.spaces.Box(-1.0, 1.0, (2,)),
            }
        )

        def seen(self):
            return {"each": np.zeros(3, np.float32), "all": np.asarray(self.x, np.float32).clip(-1, 1)}

    contract = next(finding for finding in examine(lambda: GymnasiumTaskEnv(Bounded)) if finding.subject == "contract")
    assert contract.said.startswith(
        "observation Dict('all': Box(-1.0, 1.0, (2,), float32), 'each': Box(from -inf, to 3.5, (3,), float32)), action"
    )
