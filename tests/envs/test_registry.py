"""Environments by name, or from a user's own module, and the check of the contract that TaskEnv states."""

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from probes import Good
from torch import Tensor

import maml_envs
from maml_envs import GraphKey, InputError, Step, TaskEnv, check_contract
from maml_envs.bandit import Bandit
from maml_envs.contract import ContractError
from maml_envs.navigation import Navigation
from maml_envs.robots.ant import AntDirection, AntDirection2D, AntGoal, AntVelocity
from maml_envs.robots.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_envs.robots.hopper import HopperRandomDynamics
from maml_envs.robots.humanoid import HumanoidDirection
from maml_envs.robots.walker2d import Walker2dDirection, Walker2dRandomDynamics, Walker2dVelocity
from maml_envs.tabular_mdp import TabularMDP

FAMILIES = {
    "navigation": Navigation,
    "half-cheetah-dir": HalfCheetahDirection,
    "half-cheetah-vel": HalfCheetahVelocity,
    "ant-dir": AntDirection,
    "ant-dir-2d": AntDirection2D,
    "ant-vel": AntVelocity,
    "ant-goal": AntGoal,
    "humanoid-dir": HumanoidDirection,
    "walker-dir": Walker2dDirection,
    "walker-vel": Walker2dVelocity,
    "walker-rand-params": Walker2dRandomDynamics,
    "hopper-rand-params": HopperRandomDynamics,
    "bandit": Bandit,
    "tabular-mdp": TabularMDP,
}

# --- Names and presets.


def test_names() -> None:
    assert {name: maml_envs.family(name) for name in maml_envs.names()} == FAMILIES
    assert maml_envs.names() == list(FAMILIES)
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("name", "family", "copies", "preset", "horizon"),
    [
        ("navigation", Navigation, 1, "finn2017", 100),
        ("half-cheetah-dir", HalfCheetahDirection, 2, "gymnasium", 200),
        ("half-cheetah-vel", HalfCheetahVelocity, 2, "gymnasium", 200),
        ("ant-goal", AntGoal, 2, "gymnasium", 200),
        ("humanoid-dir", HumanoidDirection, 2, "gymnasium", 200),
        ("walker-rand-params", Walker2dRandomDynamics, 2, "gymnasium", 200),
    ],
)
def test_defaults(name: str, family: type[TaskEnv], copies: int, preset: str, horizon: int) -> None:
    made = maml_envs.make_copies(partial(maml_envs.make, name))
    assert [type(env) for env in made] == [family] * copies
    assert len({id(env) for env in made}) == copies
    assert [(env.preset, env.horizon) for env in made] == [(preset, horizon)] * copies
    assert family.presets[0] == preset


def test_options_reach_every_copy() -> None:
    made = maml_envs.make_copies(partial(maml_envs.make, "half-cheetah-vel", "finn2017", horizon=17), 3)
    assert [(env.preset, env.horizon, env.dt) for env in made] == [("finn2017", 17, 0.01)] * 3
    assert maml_envs.make("navigation", horizon=5).horizon == 5


def test_copies_are_closed_where_one_fails() -> None:
    closed = []

    class Closes(Good):
        def close(self) -> None:
            closed.append(self)

    first = Closes()
    copies = [first]
    with pytest.raises(IndexError):
        maml_envs.make_copies(copies.pop, 2)
    assert closed == [first]


@pytest.mark.parametrize("name", maml_envs.names())
def test_our_own_environments_keep_the_contract(name: str) -> None:
    for preset in maml_envs.family(name).presets:
        env = maml_envs.make(name, preset)
        check_contract(env)
        env.close()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("half-cheetah", "did you mean half-cheetah-"),
        ("halfcheetah-dir", "did you mean half-cheetah-dir or "),
        ("half-cheetah-velocity", "did you mean half-cheetah-vel or "),
        ("navigaton", "did you mean navigation?"),
        ("Navigation", "did you mean navigation?"),
        ("xyzzy", "known names: navigation, half-cheetah-dir, half-cheetah-vel"),
        ("", "known names: navigation, half-cheetah-dir, half-cheetah-vel"),
    ],
)
def test_an_unknown_name_says_what_is_near(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        maml_envs.make(name)
    message = str(caught.value)
    assert message.startswith(f"env = {name!r} is not an environment; {hint}")
    assert message.endswith("Your own class is 'module:Class'")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        maml_envs.make("half-cheetah-dir", "rllab")
    assert str(caught.value) == (
        "preset = 'rllab' does not exist for half-cheetah-dir; its presets: gymnasium, finn2017"
    )
    with pytest.raises(InputError, match=r"its presets: finn2017$"):
        maml_envs.make("navigation", "")


# --- A class of one's own.

WALK = '''
import gymnasium
import numpy as np
import torch

from maml_envs import Step, TaskEnv


class Base(TaskEnv):
    """Has no step and no sample_tasks."""

    def reset(self, tasks, seeds):
        return tasks


class Walk(TaskEnv):
    """A point on a line: the task is where it stands, the reward is minus the distance from zero."""

    copies = 2
    presets = ("slow", "fast")

    def __init__(self, preset="slow"):
        self.preset = preset
        self.horizon = 6
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def sample_tasks(self, count, generator):
        return torch.randn(count, 1, generator=generator)

    def reset(self, tasks, seeds):
        self.position = tasks
        return self.position

    def step(self, action):
        self.position = self.position + action
        return Step.ongoing(self.position, -self.position.abs().squeeze(-1))


class Broken(Walk):
    presets = ()

    def __init__(self):
        super().__init__()

    def step(self, action):
        return Step.ongoing(self.position, -self.position.abs())


NUMBER = 3
'''

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules into the folder where the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def new(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    yield new
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def refusal(name: str, *options: str) -> str:
    with pytest.raises(InputError) as caught:
        maml_envs.make(name, *options)
    return str(caught.value)


def test_a_class_of_the_current_folder(write: Write, tmp_path: Path) -> None:
    assert str(tmp_path) not in sys.path
    write(my_walk=WALK)
    made = maml_envs.make_copies(partial(maml_envs.make, "my_walk:Walk"))
    assert [type(env).__name__ for env in made] == ["Walk", "Walk"]
    assert [(env.preset, env.horizon) for env in made] == [("slow", 6)] * 2
    assert inspect.getfile(type(made[0])) == str(tmp_path / "my_walk.py")
    fast = maml_envs.make("my_walk:Walk", "fast", horizon=9)
    assert (fast.preset, fast.horizon) == ("fast", 9)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_class_in_a_package(write: Write, tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "inner.py").write_text(WALK)
    write()
    assert type(maml_envs.make("my_package.inner:Walk")).__module__ == "my_package.inner"
    assert "no module 'my_package.other' in " in refusal("my_package.other:Walk")


def test_an_installed_class_is_found_too() -> None:
    assert type(maml_envs.make("maml_envs.navigation:Navigation")) is Navigation


def test_presets_of_a_class_of_ones_own(write: Write) -> None:
    write(my_presets=WALK)
    assert refusal("my_presets:Walk", "quick") == (
        "preset = 'quick' does not exist for my_presets:Walk; its presets: slow, fast"
    )
    assert refusal("my_presets:Broken", "quick").endswith("its presets: none")


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    write()
    assert refusal("my_missing:Walk") == (
        f"env = 'my_missing:Walk': no module 'my_missing' in {tmp_path} or the installed packages; "
        "run where the file is, or install it"
    )
    write(my_file=WALK)
    assert refusal("my_file.py:Walk") == "env = 'my_file.py:Walk': name the module and not its file: 'my_file:Walk'"


@pytest.mark.parametrize("module", ["", "my-module", ".relative", "folder/file", "a..b"])
def test_what_cannot_be_a_module(module: str) -> None:
    expected = f"env = '{module}:Walk': no module can be named {module!r}; write 'my_module:MyTaskEnv'"
    assert refusal(f"{module}:Walk") == expected


def test_a_class_that_is_not_in_the_module(write: Write) -> None:
    write(my_names=WALK)
    assert refusal("my_names:Wolk").replace(str(Path.cwd() / "my_names.py"), "FILE") == (
        "env = 'my_names:Wolk': my_names (FILE) has no 'Wolk'; its environment classes: ['Base', 'Walk', 'Broken']"
    )
    assert "my_names.py) has no ''" in refusal("my_names:")


@pytest.mark.parametrize("name", ["NUMBER", "np", "Step", "gymnasium"])
def test_what_is_not_a_task_env(name: str, write: Write) -> None:
    write(my_things=WALK)
    assert refusal(f"my_things:{name}") == (
        f"env = 'my_things:{name}' is not an environment class: derive it from maml_envs.TaskEnv, or from "
        "gymnasium.Env with the methods sample_tasks and set_task"
    )


def test_a_class_that_is_not_finished(write: Write) -> None:
    write(my_base=WALK)
    assert refusal("my_base:Base") == "env = 'my_base:Base' is abstract: define sample_tasks, step"
    assert refusal("my_base:TaskEnv").endswith("is abstract: define reset, sample_tasks, step")


def test_a_class_that_breaks_the_contract_is_refused_when_made(write: Write) -> None:
    write(my_broken=WALK)
    with pytest.raises(ContractError, match=r"^Broken: Step.reward has shape \(2, 1\)\. It must be \(2,\)$"):
        maml_envs.make("my_broken:Broken")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("import surely_not_installed", ModuleNotFoundError, "No module named 'surely_not_installed'"),
        # A missing module whose name is how the user's own begins, or that lies inside it.
        ("import my_err", ModuleNotFoundError, "No module named 'my_err'"),
        ("import my_error.inner", ModuleNotFoundError, "No module named 'my_error.inner'"),
        ("from maml_envs import Nothing", ImportError, "cannot import name 'Nothing'"),
        ("class Walk(", SyntaxError, "was never closed"),
    ],
)
def test_errors_inside_a_users_module_come_through(
    text: str, error: type[Exception], message: str, write: Write
) -> None:
    write(my_error=text)
    with pytest.raises(error, match=message) as caught:
        maml_envs.make("my_error:Walk")
    assert not isinstance(caught.value, InputError)


def test_errors_inside_a_users_class_come_through(write: Write) -> None:
    write(my_needs=WALK + "\n\nclass Needs(Walk):\n    def __init__(self, size):\n        pass\n")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'size'"):
        maml_envs.make("my_needs:Needs")


# --- The contract.


def box(*shape: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-1.0, 1.0, shape, np.float32)


def with_attribute(**attributes: object) -> TaskEnv:
    env = Good()
    vars(env).update(attributes)
    return env


def with_step(change: Callable[[int, Step], object]) -> TaskEnv:
    """The good environment, each of whose steps is changed, given the step's number from 1."""
    env = Good()
    step = env.step

    def changed(action: Tensor) -> object:
        taken = step(action)
        return change(env.count, taken)

    vars(env)["step"] = changed
    return env


def bad(value: float) -> Tensor:
    return torch.tensor([0.0, value])


def test_a_good_environment_passes() -> None:
    env = Good()
    check_contract(env)
    assert env.count == 2
    check_contract(with_step(lambda number, step: step._replace(info={"success": step.reward > 0})))


def test_what_stands_for_the_memory_of_steps_is_checked() -> None:
    class Remembers(Good):
        given: object = GraphKey()

        @property
        def graph_key(self) -> object:
            return self.given

    check_contract(Remembers())
    for wrong in (object(), 1, torch.zeros(2)):
        Remembers.given = wrong
        with pytest.raises(InputError, match=r"graph_key is .*Give a maml_envs.GraphKey\(\) that you keep, or None"):
            check_contract(Remembers())


SPACE_FIX = "Set it to a one-dimensional gymnasium.spaces.Box in __init__"
VIOLATIONS = {
    "no horizon": (with_attribute(horizon=None), "horizon is None. Set it to a positive integer"),
    "horizon 0": (with_attribute(horizon=0), "horizon is 0. Set it to a positive integer"),
    "horizon 1.5": (with_attribute(horizon=1.5), "horizon is 1.5. Set it to a positive integer"),
    "no observation space": (with_attribute(observation_space=None), f"observation_space is None. {SPACE_FIX}"),
    "image observations": (
        with_attribute(observation_space=box(8, 8)),
        f"observation_space is Box(-1.0, 1.0, (8, 8), float32). {SPACE_FIX}",
    ),
    "discrete actions in several dimensions": (
        with_attribute(action_space=gymnasium.spaces.MultiDiscrete([4, 4])),
        f"action_space is MultiDiscrete([4 4]). {SPACE_FIX}, or to Discrete(n)",
    ),
    "tasks are a list": (
        with_attribute(sample_tasks=lambda count, generator: [0.0] * count),
        "sample_tasks(2, ...) returned a list. Return a torch tensor (2, *task_shape)",
    ),
    "one task for all": (
        with_attribute(sample_tasks=lambda count, generator: torch.zeros(1, count)),
        "sample_tasks(2, ...) returned a tensor (1, 2). Return a torch tensor (2, *task_shape)",
    ),
    "tasks from a global state": (
        with_attribute(sample_tasks=lambda count, generator: torch.randn(count, 2)),
        "sample_tasks differs for the same generator seed. Draw from the generator that is passed in",
    ),
    "reset gives a tuple": (
        with_attribute(reset=lambda tasks, seeds: (torch.zeros(2, 3), {})),
        "reset(...) is a tuple. Return a torch tensor",
    ),
    "reset gives one row": (
        with_attribute(reset=lambda tasks, seeds: torch.zeros(3)),
        "reset(...) has shape (3,). It must be (2, 3)",
    ),
    "reset gives another width": (
        with_attribute(observation_space=box(4)),
        "reset(...) has shape (2, 3). It must be (2, 4)",
    ),
    "reset gives integers": (
        with_attribute(reset=lambda tasks, seeds: torch.zeros(2, 3, dtype=torch.int64)),
        "reset(...) has dtype torch.int64. It must be floating point",
    ),
    "reset gives NaN": (
        with_attribute(reset=lambda tasks, seeds: torch.full((2, 3), torch.nan)),
        "reset(...) holds NaN or infinity. Return finite numbers",
    ),
    "step gives gymnasium's tuple": (
        with_step(lambda number, step: tuple(step)),
        "step(...) is a tuple. Return maml_envs.Step(...) or Step.ongoing(...)",
    ),
    "step gives nothing": (
        with_step(lambda number, step: None),
        "step(...) is a NoneType. Return maml_envs.Step(...) or Step.ongoing(...)",
    ),
    "numpy observation": (
        with_step(lambda number, step: step._replace(observation=step.observation.numpy())),
        "Step.observation is a ndarray. Return a torch tensor",
    ),
    "observation of the first only": (
        with_step(lambda number, step: step._replace(observation=step.observation[:1])),
        "Step.observation has shape (1, 3). It must be (2, 3)",
    ),
    "infinite observation in the second step": (
        with_step(lambda number, step: step._replace(observation=step.observation / (number - 2))),
        "Step.observation holds NaN or infinity. Return finite numbers",
    ),
    "reward with an axis too many": (
        with_step(lambda number, step: step._replace(reward=step.reward.unsqueeze(-1))),
        "Step.reward has shape (2, 1). It must be (2,)",
    ),
    "whole-number reward": (
        with_step(lambda number, step: step._replace(reward=step.reward.long())),
        "Step.reward has dtype torch.int64. It must be floating point",
    ),
    "NaN reward": (
        with_step(lambda number, step: step._replace(reward=bad(torch.nan))),
        "Step.reward holds NaN or infinity. Return finite numbers",
    ),
    "infinite reward": (
        with_step(lambda number, step: step._replace(reward=bad(-torch.inf))),
        "Step.reward holds NaN or infinity. Return finite numbers",
    ),
    "terminated in numbers": (
        with_step(lambda number, step: step._replace(terminated=step.reward)),
        "Step.terminated has dtype torch.float32. It must be bool",
    ),
    "one terminated for all": (
        with_step(lambda number, step: step._replace(terminated=torch.tensor(False))),
        "Step.terminated has shape (). It must be (2,)",
    ),
    "truncated is a bool": (
        with_step(lambda number, step: step._replace(truncated=False)),
        "Step.truncated is a bool. Return a torch tensor",
    ),
    "wrong from the second step on": (
        with_step(lambda number, step: step if number == 1 else step._replace(truncated=step.truncated.int())),
        "Step.truncated has dtype torch.int32. It must be bool",
    ),
    "one success for all": (
        with_step(lambda number, step: step._replace(info={"success": torch.tensor(True)})),
        "Step.info['success'] is tensor(True). It must be a tensor of shape (2,), bool or 0 and 1",
    ),
    "success is a bool": (
        with_step(lambda number, step: step._replace(info={"success": False})),
        "Step.info['success'] is False. It must be a tensor of shape (2,), bool or 0 and 1",
    ),
    "success at the end alone": (
        with_step(lambda number, step: step if number == 1 else step._replace(info={"success": step.reward > 0})),
        "only one of two steps has 'success' in its info. Give it at every step, 0 where the task is not solved",
    ),
}


@pytest.mark.parametrize("case", VIOLATIONS)
def test_a_violation_is_named_with_its_fix(case: str) -> None:
    env, message = VIOLATIONS[case]
    with pytest.raises(ContractError) as caught:
        check_contract(env)
    assert str(caught.value) == f"Good: {message}"


def test_spaces_that_were_never_set() -> None:
    class Bare(Good):
        def __init__(self) -> None:
            self.horizon = 5

    with pytest.raises(ContractError, match=f"^Bare: observation_space is None. {SPACE_FIX}$"):
        check_contract(Bare())


def test_errors_of_the_environment_itself_come_through() -> None:
    env = with_attribute(reset=lambda tasks, seeds: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check_contract(env)


# --- What TaskEnv gives to every environment.


def test_step_ongoing_ends_nothing() -> None:
    step = Step.ongoing(torch.zeros(3, 2), torch.tensor([1.0, -1.0, 0.0]))
    assert step.terminated.tolist() == step.truncated.tolist() == [False] * 3
    assert step.terminated.dtype == torch.bool
    assert step.info == {}
    term = torch.ones(3)
    assert Step.ongoing(torch.zeros(3, 2), term, {"term": term}).info["term"] is term


def test_defaults_of_the_contract() -> None:
    env = Good()
    torch.manual_seed(8)
    before = torch.get_rng_state()
    tasks = env.held_out_tasks(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert tasks.shape == (4, 2, 2)
    assert torch.equal(tasks, Good().held_out_tasks(4))
    assert not torch.equal(tasks, env.sample_tasks(4, torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="Good has no held-out tasks with split='out': use split='in'"):
        env.held_out_tasks(4, "out")
    with pytest.raises(InputError, match=r"Good cannot draw itself: define render\(index\) to return an RGB array"):
        env.render()
    assert (env.copies, env.max_batch, env.device, env.presets) == (1, None, torch.device("cpu"), ())
    env.close()


def test_device_and_threads_go_to_a_class_that_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_options.py").write_text(
        "from maml_envs.navigation import Navigation\n"
        "class Nothing(Navigation):\n    def __init__(self): super().__init__(); self.given = {}\n"
        "class Device(Navigation):\n    def __init__(self, device=None): super().__init__(); self.given = {device}\n"
        "class All(Navigation):\n    def __init__(self, **options): super().__init__(); self.given = options\n"
    )
    cpu = torch.device("cpu")
    given = [maml_envs.make(f"my_options:{name}", device=cpu, threads=3).given for name in ("Nothing", "Device", "All")]
    assert given == [{}, {cpu}, {"device": cpu, "threads": 3}]
    assert maml_envs.make("my_options:All").given == {}
    assert maml_envs.make("half-cheetah-dir", threads=3)._threads == 3
    assert maml_envs.make("navigation", threads=3).horizon == 100
