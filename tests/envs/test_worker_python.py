"""Workers in a Python of another virtual environment, which has neither torch nor this package."""

import importlib.util
import os
import subprocess
import sys
import venv
from contextlib import closing
from pathlib import Path

import gym_probes
import pytest
import torch
from tiny import Command, tiny

import maml_envs
from maml_envs import GymnasiumTaskEnv, InputError, VectorOptions
from maml_rl import evaluate, load, meta_train

NEEDED = ("numpy", "gymnasium", "cloudpickle", "farama_notifications", "typing_extensions")
"""Packages, and a module, that the other environment has."""


def virtual_environment(folder: Path, packages: tuple[str, ...]) -> str:
    """Make one without a network: links to some of the packages that are installed here."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (site / source.name).symlink_to(source)
        for more in source.parent.glob(f"{name}.libs"):
            (site / more.name).symlink_to(more)
    return str(folder / "bin/python")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return virtual_environment(tmp_path_factory.mktemp("other") / "venv", NEEDED)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a module that the trainer cannot import, as it needs what the trainer has not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = Path(gym_probes.__file__).read_text()
    (tmp_path / "theirs.py").write_text(
        source + "\n\nimport sys\nassert 'envs_of_the_trainer' not in sys.argv\n"
        "if 'torch' in sys.modules or 'maml_envs' in sys.modules:\n    raise ImportError('not in the trainer')\n"
    )
    return tmp_path


def options(python: str, **more: object) -> VectorOptions:
    return VectorOptions(worker_python=python, **more)


def played(env: maml_envs.TaskEnv) -> torch.Tensor:
    tasks = env.held_out_tasks(5)
    seen = [env.reset(tasks, torch.arange(5))]
    for action in torch.randn(4, 5, env.action_width, generator=torch.Generator().manual_seed(0)):
        step = env.step(action)
        seen += [step.observation, step.reward.unsqueeze(1).expand(-1, seen[0].shape[1])]
    return torch.stack(seen)


@pytest.mark.usefixtures("folder")
def test_a_class_of_a_module_runs_there_as_it_would_here(other: str) -> None:
    with closing(maml_envs.make("theirs:Counted", vector=options(other, workers=2))) as env:
        found = played(env)
        (note,) = env.notes()
        assert note.startswith(f"workers run {other}: Python {sys.version.split()[0]}, gymnasium ")
        assert "mujoco" not in note
    with closing(GymnasiumTaskEnv(gym_probes.Counted)) as here:
        assert torch.equal(found, played(here))
    assert "theirs" not in sys.modules


@pytest.mark.usefixtures("folder")
def test_a_registered_environment_runs_there(other: str) -> None:
    ranges = {"g": (5.0, 15.0)}
    with (
        closing(maml_envs.make("gymnasium:Pendulum-v1", vector=options(other, task_ranges=ranges))) as env,
        closing(maml_envs.make("gymnasium:Pendulum-v1", vector=VectorOptions(task_ranges=ranges))) as here,
    ):
        assert (env.horizon, env.describe(torch.tensor([7.0]))) == (200, "g 7")
        assert torch.equal(played(env), played(here))


def test_it_keeps_its_own_path_and_packages(other: str, folder: Path) -> None:
    (folder / "looks.py").write_text(
        "import sys, gym_probes_here as own\nimport numpy\n"
        "class Looks(own.Counted):\n"
        "    def describe(self, task): return f'{numpy.__file__} {int(\"torch\" in sys.modules)}'\n"
    )
    (folder / "gym_probes_here.py").write_text(Path(gym_probes.__file__).read_text())
    with closing(maml_envs.make("looks:Looks", vector=options(other))) as env:
        where, torch_there = env.describe(torch.zeros(1)).split()
    assert Path(where).is_relative_to(Path(other).parents[1])
    assert torch_there == "0"


def test_a_run_trains_and_evaluates_where_the_python_lies_elsewhere(other: str, folder: Path, command: Command) -> None:
    config = tiny(env="theirs:Counted", vector={"worker_python": other}, horizon=4, iterations=1)
    run = meta_train(config, folder / "run", quiet=True)
    result = evaluate(run, tasks=2, episodes=2)
    moved = folder / "moved"
    Path(other).parents[1].rename(moved)
    try:
        code, _, err = command("evaluate", run, "--tasks", "2", "--episodes", "2")
        assert code == 2
        assert f"vector.worker_python = '{other}' cannot be started: No such file or directory" in err
        there = str(moved / "bin/python")
        code, out, err = command("evaluate", run, "--tasks", "2", "--episodes", "2", "--worker-python", there)
        assert code == 0, err
        assert f"{result.mean[0]:.2f}" in out
        for one in (run, run / "checkpoint.pt"):
            with load(one, worker_python=there) as agent:
                assert agent.learner.env.horizon == 4
    finally:
        moved.rename(Path(other).parents[1])


@pytest.mark.usefixtures("folder")
def test_what_is_wrong_with_it_is_named(other: str, tmp_path: Path) -> None:
    def refused(python: str, env: str = "theirs:Counted", **more: object) -> str:
        with pytest.raises(InputError) as caught:
            maml_envs.make(env, vector=options(python, **more))
        return str(caught.value)

    assert refused("/not/here").startswith("vector.worker_python = '/not/here' cannot be started: No such file")
    assert "give the path of a Python" in refused("/not/here")
    bare = virtual_environment(tmp_path / "bare", ("numpy",))
    assert refused(bare) == (
        f"vector.worker_python = {bare!r}: it has no gymnasium: install it there, with pip install gymnasium"
    )
    assert "no module 'nowhere'" in refused(other, "nowhere:Env")
    assert "/theirs.py) has no gymnasium.Env 'Wrong'" in refused(other, "theirs:Wrong")
    assert "Pendulun" in refused(other, "gymnasium:Pendulun-v1")
    assert "needs Meta-World" in refused(other, "metaworld:reach-v3")
    assert "give 1 or more workers" in refused(other, workers=0)
    with pytest.raises(InputError, match=r"a class of a script or notebook, .* bytecode .* into a module"):
        GymnasiumTaskEnv(gym_probes.Counted, options(other))
    with pytest.raises(InputError, match=r"vector.worker_python = '.*' with vector.workers = 0"):
        tiny(env="theirs:Counted", vector={"worker_python": other, "workers": 0})


@pytest.mark.parametrize("name", ["python3.8", "python3.9"])
def test_a_python_too_old_says_so(name: str, folder: Path) -> None:
    known = [*os.environ["PATH"].split(os.pathsep), *Path.home().glob(".pyenv/versions/*/bin")]
    found = [Path(part) / name for part in known if (Path(part) / name).is_file()]
    found = [file for file in found if subprocess.run([file, "-V"], capture_output=True, check=False).returncode == 0]
    if not found:
        pytest.skip(f"there is no {name} here")
    with pytest.raises(InputError, match=rf"{name}': it is Python 3\.\d+, and a worker needs 3\.10 or newer"):
        maml_envs.make("theirs:Counted", vector=options(str(found[0])))
