"""docs/lessons/own_robot.md does what it says: its files are written, its commands run, and its robots are whole."""

import re
import shlex
import sys
from pathlib import Path

import films
import mujoco
import numpy as np
import pytest
import torch
from documents import blocks, write_files
from tiny import Command

import maml_envs
from maml_envs import InputError, MujocoTask, ResetNoise
from maml_envs.check_env import Finding, examine

TEXT = (Path(__file__).parents[2] / "docs/lessons/own_robot.md").read_text()
BLOCKS = blocks(TEXT)
COMMANDS = [shlex.split(line) for language, text in BLOCKS if not language for line in text.splitlines()]
SHORT = ["--iterations", "1", "--tasks", "3", "--episodes", "2"]
FEW = ["--tasks", "2", "--episodes", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("reach", "walk"):
        sys.modules.pop(name, None)
    write_files(BLOCKS, tmp_path, r"(?:# |<!-- )(\w+\.\w+)")
    return tmp_path


def of(name: str, **attributes: object) -> type[MujocoTask]:
    """The class of a file here, with other attributes."""
    family = maml_envs.family(name)
    return type(family.__name__, (family,), {"__module__": family.__module__} | attributes)


def findings(family: type[MujocoTask]) -> dict[str, Finding]:
    return {each.subject: each for each in examine(family)}


@pytest.mark.usefixtures("opengl_works")
def test_every_command_runs(command: Command, folder: Path) -> None:
    files = {file.name for file in folder.iterdir()}
    assert files == {"arm.xml", "reach.py", "reach.toml", "quadruped.xml", "walk.py"}
    assert [line[1] for line in COMMANDS] == ["check-env", "train", "evaluate", "plot", "render", "check-env"]
    for line in COMMANDS:
        more = {"train": SHORT, "evaluate": FEW, "render": ["--tasks", "1", "--steps", "1"]}.get(line[1], [])
        code, out, err = command(*line[1:], *more)
        assert code == 0, (line, out, err)
        if line[1] == "check-env":
            assert set(re.findall(r"^(\w+) ", out, re.MULTILINE)) == {"ok"}, out
    frames, _ = films.read(folder / "runs/reach/videos/adaptation.mp4")
    assert frames.std() > 5
    assert "MUJOCO_LOG.TXT" not in {file.name for file in folder.iterdir()}


@pytest.mark.usefixtures("folder")
def test_the_classes_are_short() -> None:
    for language, text in BLOCKS:
        if language == "python":
            assert len([line for line in text.partition("class ")[2].splitlines() if line.strip()]) <= 27


@pytest.mark.usefixtures("folder")
def test_the_fingertip_is_where_the_angles_put_it() -> None:
    env = maml_envs.make("reach:Reach", threads=2)
    env.reset(env.held_out_tasks(3), torch.arange(3))
    for _ in range(20):
        step = env.step(torch.tensor([[1.0, 0.3], [-1.0, 1.0], [0.2, -1.0]]))
    shoulder, both = env.state.qpos[:, 0], env.state.qpos.sum(1)
    place = 0.1 * torch.stack((shoulder.cos() + both.cos(), shoulder.sin() + both.sin()), -1)
    torch.testing.assert_close(step.observation[:, 4:], place.float(), rtol=0, atol=1e-6)
    distance = (place - env.held_out_tasks(3)).norm(dim=1)
    torch.testing.assert_close(step.reward, -distance.float(), rtol=0, atol=1e-6)
    assert step.info["success"].tolist() == (distance < 0.02).tolist()
    env.close()


@pytest.mark.usefixtures("folder")
def test_the_quadruped_stands_on_its_feet_with_the_mass_of_its_task() -> None:
    env = of("walk:Walk")(threads=1)
    tasks = torch.tensor([[1.0, 0.7], [1.0, 1.3]])
    first = env.reset(tasks, torch.arange(2))
    assert (first[:, -4:] >= 0).all()
    for _ in range(40):
        step = env.step(torch.zeros(2, 8))
    assert not step.terminated.any()
    for row, task in enumerate(tasks):
        model = env.task_model(task)
        assert model.body_mass[1] == pytest.approx(float(task[1]) * env.model.body_mass[1])
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = env.state.qpos[row], env.state.qvel[row]
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(50 * step.observation[row, -4:], data.sensordata, rtol=1e-3, atol=1e-3)
        assert data.sensordata.sum() > 0.7 * 9.81 * model.body_mass.sum()
    env.close()


@pytest.mark.parametrize("name", ["reach:Reach", "walk:Walk"])
@pytest.mark.usefixtures("folder")
def test_on_mujoco_warp_it_is_the_same(name: str) -> None:
    pytest.importorskip("mujoco_warp")
    cpu, warped = of(name)(threads=1), of(name, simulator="mujoco_warp")()
    for env in (cpu, warped):
        env.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # no axes of friction to differ
    tasks = cpu.held_out_tasks(3)
    pairs = [(cpu.reset(tasks, torch.arange(3)), warped.reset(tasks, torch.arange(3)))]
    for action in torch.randn(8, 3, cpu.action_width, generator=torch.Generator().manual_seed(1)):
        one, other = cpu.step(action), warped.step(action)
        pairs += [(one.observation, other.observation), (one.reward, other.reward)]
    for one, other in pairs:
        torch.testing.assert_close(other, one, rtol=0, atol=2e-2)
    assert warped.graph_key is not None
    cpu.close()
    warped.close()


# --- What a class gets wrong.


def test_motors_without_a_range_act_as_they_are_and_are_named(folder: Path) -> None:
    text = (folder / "arm.xml").read_text()
    (folder / "arm.xml").write_text(text.replace(' ctrllimited="true" ctrlrange="-0.1 0.1"', ' gear="0.1"', 1))
    env = of("reach:Reach")(threads=1)
    env.reset(env.held_out_tasks(1), torch.arange(1))
    env.step(torch.tensor([[3.0, 3.0]]))
    assert env._physics._control.tolist() == [[3.0, 0.1]]
    assert env.action_space.high.tolist() == [np.inf, 1.0]
    found = findings(of("reach:Reach"))
    assert found["note"].said == "motors without ctrlrange take actions as they are, unclipped: number 0"
    assert found["actions"].level == "ok"


def test_actions_without_effect_are_an_error(folder: Path) -> None:
    text = (folder / "arm.xml").read_text()
    (folder / "arm.xml").write_text(text.replace('ctrlrange="-0.1 0.1"', 'ctrlrange="-0.1 0.1" gear="0"'))
    found = findings(of("reach:Reach"))["actions"]
    assert found.level == "error"
    assert "other actions give the same observations" in found.said
    assert "gear, gain and ctrlrange" in found.fix


@pytest.mark.usefixtures("folder")
def test_large_numbers_in_the_observation_are_a_warning() -> None:
    family = of("walk:Walk", observation=lambda self, state: torch.cat((state.qpos, 20 * state.sensordata), -1))
    found = findings(family)["observation scale"]
    assert found.level == "warning"
    assert found.said.startswith("numbers [15, 16, 17, 18] of the observation are as large as ")


@pytest.mark.usefixtures("folder")
def test_models_of_other_sizes_are_refused() -> None:
    def taller(self: MujocoTask, task: torch.Tensor) -> mujoco.MjModel:
        spec = mujoco.MjSpec.from_file("arm.xml")
        if task[0] > 0.1:
            spec.body("forearm").add_joint(name="wrist", axis=[1, 0, 0])
        return spec.compile()

    env = of("reach:Reach", task_model=taller)(threads=1)
    with pytest.raises(InputError, match=r"task \(0.12, 0\) has other sizes .*: nq 2 and 3, nv 2 and 3, njnt"):
        env.reset(torch.tensor([[0.06, 0.0], [0.12, 0.0]]), torch.arange(2))
    env.reset(torch.tensor([[0.06, 0.0], [0.07, 0.0]]), torch.arange(2))
    env.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("leg.xml", r"the robot's model: there is no file .*leg\.xml"),
        ("bad.xml", r"does not compile, .*bad\.xml: XML Error: invalid keyword: 'wobble' Element 'joint', line 1$"),
        ("<mujoco><worldbody><body/></mujoco>", "the robot's model does not compile, the XML text: "),
    ],
)
def test_a_model_that_is_not_there_or_does_not_compile(folder: Path, source: str, message: str) -> None:
    (folder / "bad.xml").write_text('<mujoco><worldbody><body><joint type="wobble"/></body></worldbody></mujoco>')
    family = of("reach:Reach", __init__=lambda self: MujocoTask.__init__(self, source))
    with pytest.raises(InputError, match=message):
        family()


@pytest.mark.usefixtures("folder")
def test_fields_and_keyframes_are_checked() -> None:
    with pytest.raises(InputError, match="there is no 'fingertip'; qpos and qvel are always there"):
        of("reach:Reach", fields=("fingertip",))()
    with pytest.raises(AttributeError, match=r"the state has no 'site_xpos', only .*: name it in the class"):
        _ = of("reach:Reach", fields=())().observation_space
    with pytest.raises(
        InputError, match=r"Reach.observation_space: the state has no 'site_xpos', .*: name it in the class"
    ):
        maml_envs.check_contract(of("reach:Reach", fields=())())
    with pytest.raises(
        InputError, match=r"fields = 'site_xpos' is a text: a comma is missing, fields = \('site_xpos',\)"
    ):
        of("reach:Reach", fields="site_xpos")()
    with pytest.raises(InputError, match="there is no 'site_xpso'; did you mean site_xpos"):
        of("reach:Reach", fields=("site_xpso",))()
    start = ResetNoise(around="sit")
    with pytest.raises(InputError, match=r"ResetNoise\(around='sit'\): .* no such keyframe, only \['stand'\]"):
        of("walk:Walk", __init__=lambda self: MujocoTask.__init__(self, "quadruped.xml", noise=start))()
    short = ResetNoise(around=(0.0, 1.0))
    with pytest.raises(
        InputError, match=r"ResetNoise\(around=\(0.0, 1.0\)\): give a keyframe's name, or the 15 numbers of qpos"
    ):
        of("walk:Walk", __init__=lambda self: MujocoTask.__init__(self, "quadruped.xml", noise=short))()


def test_meshes_and_includes_are_found_beside_the_file(folder: Path) -> None:
    (folder / "parts").mkdir()
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = (
        "f 1 3 4\nf 1 4 2\nf 5 6 8\nf 5 8 7\nf 1 2 6\nf 1 6 5\nf 3 7 8\nf 3 8 4\nf 1 5 7\nf 1 7 3\nf 2 4 8\nf 2 8 6\n"
    )
    (folder / "parts/cube.obj").write_text("".join(f"v {x} {y} {z}\n" for x, y, z in corners) + faces)
    mesh = '<mesh name="cube" file="cube.obj" scale="0.01 0.01 0.01"/>'
    (folder / "parts/hand.xml").write_text(f"<mujoco><asset>{mesh}</asset></mujoco>")
    (folder / "parts/arm.xml").write_text(
        (folder / "arm.xml")
        .read_text()
        .replace('<option timestep="0.01"/>', '<include file="hand.xml"/>')
        .replace('<site name="fingertip"', '<geom type="mesh" mesh="cube"/><site name="fingertip"')
    )
    family = of("reach:Reach", __init__=lambda self: MujocoTask.__init__(self, "parts/arm.xml"))
    assert family().model.nmesh == 1


PARAMETERS = {
    "None": (lambda self, tasks: None, "task_parameters returned None: return a dictionary"),
    "a name": (lambda self, tasks: {"body_mas": tasks}, "'body_mas' is no array of numbers .*; did you mean body_mass"),
    "integers": (lambda self, tasks: {"jnt_type": torch.zeros(len(tasks), 2)}, "'jnt_type' is no array of numbers"),
    "time": (lambda self, tasks: {"opt.timestep": tasks[:, 0]}, "'opt.timestep' is no array of numbers that tasks may"),
    "one column": (lambda self, tasks: {"body_mass": tasks[:, :1]}, r"shape \(2, 1\) for 2 tasks: return \(2, 3\)"),
    "one row": (lambda self, tasks: {"body_mass": torch.ones(3)}, r"has shape \(3,\) for 2 tasks: return \(2, 3\)"),
    "text": (lambda self, tasks: {"body_mass": "heavy"}, "'body_mass' is 'heavy' and not a tensor"),
}


@pytest.mark.parametrize("wrong", PARAMETERS)
@pytest.mark.usefixtures("folder")
def test_wrong_parameters_of_tasks_are_named(wrong: str) -> None:
    parameters, message = PARAMETERS[wrong]
    env = of("reach:Reach", task_parameters=parameters)(threads=1)
    for _ in range(2):  # the second time is no other
        with pytest.raises(InputError, match=message):
            env.reset(env.held_out_tasks(2), torch.arange(2))
    env.close()


@pytest.mark.usefixtures("folder")
def test_gravity_can_be_a_task_and_is_drawn_with_it() -> None:
    def gravity(self: MujocoTask, tasks: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"opt.gravity": torch.stack((tasks[:, 0], tasks[:, 1], 0 * tasks[:, 0]), -1)}

    env = of("reach:Reach", task_parameters=gravity)(threads=1)
    env.reset(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([3, 3]))
    for _ in range(10):
        env.step(torch.zeros(2, 2))
    assert env.state.qpos[1, 0] > env.state.qpos[0, 0] + 0.1  # it falls along y
    assert env.task_model(torch.tensor([1.0, 2.0])).opt.gravity.tolist() == [1.0, 2.0, 0.0]
    env.close()


WRONG = {
    "success": (
        "success",
        lambda self, state, task: state.qpos[..., 0],
        "success returned torch.float64 .* distance < ",
    ),
    "terminated": (
        "terminated",
        lambda self, state: torch.zeros(1, dtype=torch.bool),
        r"terminated returned torch.bool \(1,\)",
    ),
    "a term": ("reward_terms", lambda self, b, c, a, t: {"success": a.qpos[..., 0]}, "is the method success"),
    "a tensor": (
        "reward_terms",
        lambda self, b, c, a, t: a.qpos[..., 0],
        "reward_terms returned Tensor: ",
    ),
    "an axis": ("observation", lambda self, state: state.qpos[:, :1], "count axes from the end"),
    "a model": ("task_model", lambda self, task: None, "the robot's model is None: give an MJCF file"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.usefixtures("folder")
def test_what_a_function_returns_is_checked(wrong: str) -> None:
    name, function, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        maml_envs.check_contract(of("reach:Reach", **{name: function})(threads=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_skip": 0}, "frame_skip = 0: give a whole number of 1 or more"),
        ({"frame_skip": 2.5}, "frame_skip = 2.5: give a whole number"),
        ({"threads": -2}, "threads = -2: give a whole number of 0 or more"),
        ({"horizon": 0}, "horizon = 0: give"),
        ({"noise": ResetNoise(qpos_normal=-1.0)}, "a width is 0 or more"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_numbers_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        of("reach:Reach", __init__=lambda self: MujocoTask.__init__(self, "arm.xml", **options))()


@pytest.mark.usefixtures("folder")
def test_a_diverged_world_shows_in_a_model_of_its_own_too() -> None:
    env = of("reach:Reach", task_model=lambda self, task: "arm.xml")(threads=1)
    env.reset(env.held_out_tasks(2), torch.arange(2))
    env.state.qvel[0] = 1e9
    for _ in range(3):
        step = env.step(torch.zeros(2, 2))
    assert step.observation.isfinite().all(1).tolist() == [False, True]
    env.close()


def test_a_subclass_in_another_folder_finds_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/faster.py").write_text("from reach import Reach\n\n\nclass Faster(Reach):\n    pass\n")
    monkeypatch.setattr(sys, "path", [str(folder / "sub"), *sys.path])
    monkeypatch.chdir(folder / "sub")
    assert maml_envs.make("faster:Faster").model.nq == 2
    with pytest.raises(InputError, match="name the module and not its file: 'faster:Faster'"):
        maml_envs.make("faster.py:Faster")


@pytest.mark.usefixtures("folder", "opengl_works")
def test_pictures_are_of_the_model_of_the_task() -> None:
    def longer(self: MujocoTask, task: torch.Tensor) -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_file("arm.xml")
        spec.geoms[1].size[0] = 0.01 if task[0] < 0.1 else 0.08
        return spec

    env = of("reach:Reach", task_model=longer)(threads=1)
    env.reset(torch.tensor([[0.06, 0.0], [0.14, 0.0]]), torch.zeros(2, dtype=torch.int64))
    thin, thick = env.render(0), env.render(1)
    assert (thin != thick).any(-1).sum() > 1000
    assert np.array_equal(env.render(0), thin)
    env.close()
