"""What people bring is right, or refused by name with the place and the fix."""

from pathlib import Path
from typing import Any

import brought
import numpy as np
import pytest
import torch
from tiny import tiny

import maml_envs
from maml_envs import InputError, VectorOptions
from maml_envs.check_env import Finding, examine
from maml_envs.errors import WorkerError
from maml_rl import meta_train
from maml_rl.rl.linear_baseline import refuse_wide
from maml_rl.runs.folder import read_metrics


def made(name: str, **vector: Any) -> Any:
    return maml_envs.make(f"brought:{name}", vector=VectorOptions(**vector))


def findings(name: str) -> list[Finding]:
    return list(examine(lambda: made(name)))


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize(
    ("name", "where", "what"),
    [
        ("InitRaises", "while it was made", "/nonexistent/mesh.stl"),
        ("SetTaskRaises", r"with task \[.*, in the first set_task, reset or step", "KeyError: 'goal'"),
        ("ResetRaises", r"with task \[.*, in the first set_task, reset or step", "KeyError: 'level'"),
        ("StepRaises", r"with task \[.*, in the first set_task, reset or step", "RuntimeError: boom"),
        ("ResetGivesNoInfo", "in the first", r"reset returned a ndarray: return \(observation, info\)"),
        ("ResetInfoIsNone", "in the first", r"reset returned \(ndarray, NoneType\): return \(observation, info\)"),
        ("InfoIsNone", "in the first", "step returned an info that is None: return a dict"),
        ("RewardIsText", "step 0", "reward is '1.5': return one number"),
        ("EndsTwice", "step 0", "terminated is array.*: return True or False"),
        ("FractionsInBytes", "at its reset", r"holds \[0.3\], which observation_space Box.* cannot hold"),
        ("TooLargeForBytes", "at its reset", r"holds \[300\], which observation_space Box.* cannot hold"),
        ("NoSuchChoices", "at its reset", r"array\(\[3, 0\]\) is not of observation_space MultiDiscrete"),
        ("FractionsInFlags", "at its reset", r"is not of observation_space MultiBinary"),
        ("NoSuchChoice", "at its reset", r"the observation -1 is not of observation_space Discrete\(5\)"),
        ("OtherAxes", "at its reset", r"has the shape \(4, 4, 3\), and observation_space \(3, 4, 4\)"),
        ("UnknownKey", "at its reset", r"has the keys \['goal'\], which observation_space lacks: it has \['place'\]"),
        ("OnePartMore", "at its reset", "has 2 parts, and observation_space Tuple"),
        ("Complex", "at its reset", "holds complex numbers: return their real and imaginary parts"),
        ("BeyondFloats", "at its reset", r"holds 16777217, and a policy sees 32-bit .* up to 2\*\*24"),
        ("NoFlag", "step 0", "terminated is nan: return True or False"),
        ("TaskSetsActions", "at its reset", r"action_space is Box\(-3.0, 3.0.*, and was Box\(-1.0, 1.0"),
        ("EachHasItsOwn", "at its reset", "observation_space is Box.*, and was Box.* of the first environment"),
        ("NoObservation", "at its reset", "the observation None is not of observation_space Box"),
        ("Ragged", "at its reset", r"the observation \[\[1.0\], \[1.0, 2.0\]\] is not of observation_space Box"),
    ],
)
def test_an_error_of_its_own_says_where(name: str, where: str, what: str, workers: int | None) -> None:
    with pytest.raises(WorkerError, match=f"(?s){what}.*{where}|{where}.*{what}"):
        made(name, workers=workers)
    if workers is None:
        assert [finding.level for finding in findings(name)] == ["error"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SampleTakesNoGenerator", r"sample_tasks cannot be called.*write def sample_tasks\(self, count, rng\)"),
        ("SetTaskTakesNothing", r"set_task cannot be called.*write def set_task\(self, task\)"),
        ("ResetTakesNoSeed", r"reset cannot be called.*write def reset\(self, \*, seed=None, options=None\)"),
        ("NoObservationSpace", "observation_space is None: give a space, such as gymnasium.spaces.Box"),
        ("NoActionSpace", "action_space is None"),
        ("OwnSpace", "does not flatten to a row of numbers"),
        ("WordsForTasks", "the tasks are not numbers"),
        (
            "TasksAreDicts",
            r"a dict with the keys velocity, mass, as in .*\[\[task\['velocity'\], task\['mass'\]\] for task",
        ),
        ("ResetsTasks", r"(?s)no sample_tasks and no set_task. It has reset_task, .*self.reset_task\("),
        ("HeldOutWithoutSplit", r"held_out_tasks cannot be called.*write def held_out_tasks\(self, count, split\)"),
        ("HeldOutOfOtherWidth", "held_out_tasks returned rows of 3 numbers, and sample_tasks of 2"),
        ("HeldOutIsAList", r"held_out_tasks is \(\(0.0, 0.0\),\): write def held_out_tasks"),
        ("TasksAreNaN", "a task holds NaN or infinity: draw finite numbers"),
        ("HorizonIsAFraction", "nothing says how long an episode is, a time limit or a whole number `horizon`"),
        ("Elsewhere", r"changes the working directory, to /.*/helpers, .*and no os.chdir"),
        ("TasksTooLarge", r"a task holds \d+, which is no number that can be kept exactly: .*2\*\*53"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_fix(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # and back
    with pytest.raises(InputError, match=f"(?s)brought:{name}.*{said.removeprefix('(?s)')}"):
        made(name)


@pytest.mark.parametrize("workers", [None, 2])
def test_a_task_is_set_as_it_was_drawn(workers: int | None) -> None:
    """Whole numbers of 31 bits: as float32, nearly none would be one that was drawn."""
    env = made("SeedsForTasks", workers=workers)
    tasks = env.sample_tasks(40, torch.Generator().manual_seed(0))
    env.reset(tasks, torch.arange(40))
    env.close()
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0))))
    assert tasks[:, 0].tolist() == rng.integers(2**31, size=40).tolist()
    if workers is None:
        assert set(map(int, brought.SeedsForTasks.was_set)) <= brought.SeedsForTasks.drawn
        assert all(isinstance(task, np.int64) for task in brought.SeedsForTasks.was_set)


def test_bytes_are_what_they_are() -> None:
    env = made("Bytes")
    first = env.reset(env.sample_tasks(3, torch.Generator().manual_seed(0)), torch.arange(3))
    assert ((first > 90) & (first < 110)).all()


def test_a_bound_that_no_action_reaches_is_none() -> None:
    env = made("UnboundedActions")
    env.reset(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
    one, other = (env.step(torch.full((1, 2), value)).observation for value in (0.0, 3.0))
    np.testing.assert_allclose((other - one).numpy(), 0.3, rtol=1e-5)


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("IsSuccess", 1.0),
        ("TensorSuccess", 1.0),
        ("SuccessAtTheEnd", None),
        ("SuccessUnknownYet", 1.0),
        ("Point", None),
    ],
)
def test_success_is_counted_whatever_it_is_called_and_whenever_it_is_said(
    name: str, share: float | None, workers: int | None, tmp_path: Path
) -> None:
    vector = {} if workers is None else {"workers": workers}
    run = meta_train(tiny(env=f"brought:{name}", horizon=10, tasks=8, vector=vector), tmp_path / "run", quiet=True)
    rows = read_metrics(run)
    if name == "Point":
        assert not any(key.startswith("success") for key in rows[0])
    elif share is None:
        assert 0 < rows[0]["success/0"] < 1
    else:
        assert rows[0]["success/0"] == share


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("whole.0", "'whole.0' is in an array of int64, which cannot hold fractions"),
        ("anew", "anew was set to .* and is 1 after a reset, which sets it itself"),
        ("anew.0", "anew.0 was set to .* and is 1 after a reset, which sets it itself"),
    ],
)
def test_an_attribute_that_does_not_keep_its_value_is_refused(key: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        maml_envs.make("brought:WholeArray", vector=VectorOptions(task_ranges={key: (1.5, 3)}))


def test_an_array_that_is_copied_in_reset_keeps_its_value() -> None:
    env = maml_envs.make("brought:WholeArray", vector=VectorOptions(task_ranges={"copied": (0, 3)}))
    env.reset(torch.tensor([[0.0], [3.0]]), torch.zeros(2, dtype=torch.int64))
    np.testing.assert_allclose(env.step(torch.ones(2, 1)).observation.numpy(), [[0.0], [0.6]], rtol=1e-6)


def test_a_whole_number_that_gets_fractions_and_a_sign_that_changes_are_pointed_at() -> None:
    def ranged(name: str, ranges: dict[str, tuple[float, float]]) -> list[str]:
        found = examine(lambda: maml_envs.make(name, horizon=5, vector=VectorOptions(task_ranges=ranges)))
        return [finding.said for finding in found if finding.level == "warning" and finding.subject == "asked for"]

    assert ["count is a whole number of its own, 2" in said for said in ranged("brought:WholeArray", {"count": (1, 3)})]
    assert "another sign than its own -9.81" in ranged("gymnasium:HalfCheetah-v5", {"gravity": (5, 15)})[0]
    assert ranged("gymnasium:HalfCheetah-v5", {"gravity": (-15, -5)}) == []


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize("name", ["brought:Point", "gymnasium:brought:BroughtPoint-v0"])
def test_options_reach_the_constructor(name: str, workers: int | None) -> None:
    moves = []
    for options in (None, {"gain": 3.0}):
        env = maml_envs.make(name, vector=VectorOptions(workers=workers), env_options=options)
        first = env.reset(torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
        moves.append(env.step(torch.ones(1, 2)).observation - first)
        env.close()
    np.testing.assert_allclose(moves[1].numpy(), 3 * moves[0].numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("brought:Point", {"gian": 3.0}, "env_options: Point takes no 'gian'; did you mean gain"),
        ("gymnasium:Pendulum-v1", {"gg": 9.0}, "env_options: PendulumEnv takes no 'gg'; did you mean g"),
        ("tabular-mdp", {"sttes": 5}, "env_options: TabularMDP takes no 'sttes'; did you mean states"),
        ("navigation", {"preset": "x"}, "env_options.preset with env = 'navigation': it is a key of its own"),
        ("metaworld:reach-v3", {"x": 1}, "env_options does nothing for env = 'metaworld:reach-v3'"),
    ],
)
def test_an_option_that_nobody_takes_is_named(name: str, options: dict[str, Any], said: str) -> None:
    ranges = {"m": (0.5, 2.0)} if "Pendulum" in name else None
    with pytest.raises(InputError, match=said):
        maml_envs.make(name, vector=VectorOptions(task_ranges=ranges), env_options=options)


def test_a_family_of_this_package_takes_options_too() -> None:
    env = maml_envs.make("tabular-mdp", env_options={"states": 4})
    assert env.observation_space.shape == (4,)


def test_options_are_trained_with_and_saved(tmp_path: Path) -> None:
    config = tiny(env="brought:Point", horizon=10, env_options={"gain": 0.0})
    run = meta_train(config, tmp_path / "run", quiet=True)
    assert "[config.env_options]\ngain = 0.0" in (run / "config.toml").read_text()
    still = read_metrics(run)[0]["return/0"]
    other = meta_train(tiny(env="brought:Point", horizon=10), tmp_path / "other", quiet=True)
    assert read_metrics(other)[0]["return/0"] != still


def test_a_module_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match="no module 'nobodys'"):
        maml_envs.make("gymnasium:nobodys:Hill-v0")


def test_observations_too_wide_for_the_linear_baseline_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"observations of 100,800 numbers and tasks = 20: .* use baseline.name = 'time'"
    ):
        refuse_wide(100_800, 20)
    refuse_wide(376, 40)


@pytest.mark.parametrize("method", ["maml", "oracle"])
def test_what_it_writes_into_what_it_gets_changes_nothing(method: str, tmp_path: Path) -> None:
    runs = [
        meta_train(tiny(env=f"brought:{name}", horizon=5, method=method), tmp_path / name, quiet=True)
        for name in ("WritesIntoWhatItGets", "Clones")
    ]
    rows = [[row | {"seconds": 0} for row in read_metrics(run)] for run in runs]
    named = [{key: value for key, value in row.items() if "seconds" not in key} for row in rows[0]]
    assert named == [{key: value for key, value in row.items() if "seconds" not in key} for row in rows[1]]
    assert not [one for one in findings("WritesIntoWhatItGets") if one.level == "error"]


def test_derivatives_in_a_step_are_found_before_training() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        made("TakesDerivatives")


@pytest.mark.parametrize("name", ["SuccessInWords", "SuccessOfTwo"])
def test_a_success_that_is_no_flag_is_pointed_at_and_not_counted(name: str, tmp_path: Path) -> None:
    warned = [finding.said for finding in findings(name) if finding.level == "warning"]
    assert len(warned) == 1
    assert "success is counted where it is one flag, True or False" in warned[0]
    run = meta_train(tiny(env=f"brought:{name}", horizon=5), tmp_path / "run", quiet=True)
    assert not any(key.startswith("success") for key in read_metrics(run)[0])


@pytest.mark.parametrize("workers", [None, 1])
def test_held_out_tasks_may_have_another_form_than_those_of_training(workers: int | None) -> None:
    """A number or a row, whole or not: set_task gets those of training as they are drawn."""
    for name in ("WholeBesideFractions", "NumbersBesideRows"):
        env = made(name, workers=workers)
        env.reset(env.sample_tasks(2, torch.Generator().manual_seed(0)), torch.arange(2))
        env.step(torch.zeros(2, 2))
        assert env.held_out_tasks(3).shape == (3, 1)
        env.close()


def test_an_own_horizon_that_is_odd_gives_way_to_one_that_is_given() -> None:
    env = maml_envs.make("brought:HorizonIsAFraction", horizon=7)
    assert env.horizon == 7
    env.close()


@pytest.mark.parametrize("name", ["NewSpacesThatAreEqual", "BoundsFollowTheTask"])
def test_spaces_may_be_made_anew_and_bounds_of_observations_may_differ(name: str) -> None:
    env = made(name)
    first = env.reset(env.sample_tasks(2, torch.Generator().manual_seed(0)), torch.arange(2))
    assert first.shape == (2, 2)
    env.close()


def test_one_that_cannot_close_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"close\(\) of env = 'brought:CannotClose' raised .*hung up"):
        run = meta_train(tiny(env="brought:CannotClose", horizon=5), tmp_path / "run", quiet=True)
    assert len(read_metrics(run)) == 2


def test_a_module_that_ends_the_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script_env.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--lr', '1'])\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"script_env ends the program: .* under if __name__ == '__main__':"):
        maml_envs.make("script_env:Mine")
