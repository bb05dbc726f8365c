"""`render` films what `evaluate` plays: real runs, read back from the video, and its drawings at the pixel."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Command, files, tiny

import maml_rl
from envs import InputError, make, opengl
from maml_rl import meta_train
from maml_rl.evaluate import explore_held_out, load_learner, settings
from maml_rl.render import EPISODES_ON_A_MAP, Scene, _panels, adapt, check, play

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def navigation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(iterations=1), tmp_path_factory.mktemp("render") / "navigation", quiet=True)


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny(env="half-cheetah-dir", iterations=1, inner={"lr": 0.5})
    return meta_train(config, tmp_path_factory.mktemp("render") / "cheetah", quiet=True)


@pytest.fixture(scope="module")
def opengl_works() -> None:
    try:
        opengl.renderer(make("half-cheetah-dir", copies=1)[0].model, 8, 8).close()
    except InputError as error:
        pytest.skip(str(error))


def scene_of(run: Path, tasks: int = 2, steps: int = 2, episodes: int = 10) -> Scene:
    learner, theta = load_learner(run)
    chosen = settings(learner.config, "test", tasks=tasks, steps=steps, episodes=episodes)
    return adapt(learner, learner.envs[0], theta, chosen, "in")


def frames(path: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in imageio.get_reader(path)])


def test_a_map_of_navigation(navigation: Path, tmp_path: Path) -> None:
    before = files(navigation)
    paths = maml_rl.render(navigation, out=tmp_path / "out")
    assert [path.name for path in paths] == ["adaptation.mp4", "adaptation.gif", "adaptation.png"]
    assert files(navigation) == before
    film = frames(paths[0])
    assert film.shape == (6, 2 * (300 + 57 + 16), 3 * (300 + 16), 3)  # 5 steps and the start; 2 tasks, k = 0, 1, 2
    about = imageio.get_reader(paths[0]).get_meta_data()
    assert (about["fps"], about["codec"], about["pix_fmt"].split("(")[0]) == (20, "h264", "yuv420p")
    changes = np.abs(np.diff(film.astype(float), axis=0)).mean((1, 2, 3))
    assert (changes > 0.1).all()
    poster = np.asarray(Image.open(paths[2]), float)
    assert np.abs(film[-1] - poster).mean() < 3 < np.abs(film[0] - poster).mean() + 3
    with Image.open(paths[1]) as gif:
        assert gif.is_animated
        assert gif.info["duration"] == 100
    again = maml_rl.render(navigation, out=tmp_path / "out", steps=0, tasks=1)
    assert [path.name for path in again] == ["adaptation_2.mp4", "adaptation_2.gif", "adaptation_2.png"]
    assert frames(again[0]).shape[1:] == (373 + 1, 316, 3)


def test_returns_are_those_that_evaluation_adapts_on(navigation: Path) -> None:
    scene = scene_of(navigation)
    *_, end = play(scene)
    learner, theta = load_learner(navigation)
    exploration, _, _ = explore_held_out(learner, theta, 2, 10, 2, "in")
    assert torch.allclose(end.returns[::3], exploration.trajectories[0].returns(), atol=1e-5)
    assert not torch.allclose(end.returns[1::3], end.returns[::3], atol=1e-2)
    value = _panels(scene, end, None)[3].value  # the second task before adaptation
    assert value == f"mean return {float(exploration.trajectories[0].returns()[1].mean()):.1f}"


def test_panels_of_a_task_differ_by_adaptation_alone(navigation: Path) -> None:
    scene = scene_of(navigation)
    theta = {name: value[:1].expand_as(value) for name, value in scene.params.items()}
    *_, end = play(scene._replace(params=theta))
    assert torch.equal(end.paths[0], end.paths[1])
    assert torch.equal(end.paths[0], end.paths[2])
    assert not torch.equal(end.paths[0], end.paths[3])  # another task has other noise
    assert not torch.equal(end.paths[0, 0], end.paths[0, 1])  # and so has another episode


def test_the_story_of_episodes_that_end(navigation: Path) -> None:
    scene = scene_of(navigation, tasks=1, steps=0)
    first = next(play(scene))
    assert (first.live.all(), first.returns.sum(), first.paths.shape) == (True, 0.0, (1, 10, 1, 2))
    goal = torch.tensor([[0.3, 0.0]])

    class Straight:
        """Walks along x by 0.1 a step, and not at all in odd episodes."""

        def __call__(self, params: object, observation: torch.Tensor) -> "Straight":
            self.move = torch.zeros_like(observation)
            self.move[:, ::2, 0] = 1.0
            return self

        def sample(self, noise: torch.Tensor) -> torch.Tensor:
            return self.move

    stories = list(play(scene._replace(tasks=goal, policy=Straight())))
    assert len(stories) == 6
    assert [story.lengths[0, :2].tolist() for story in stories] == [[min(t, 3), t] for t in range(6)]
    assert stories[-1].live[0].tolist() == [False, True] * 5
    assert stories[-1].returns[0, :2].tolist() == pytest.approx([-0.3, -1.5])
    assert stories[-1].paths[0, 0, :4, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert stories[-1].paths[0, 0, 4:].isnan().all()
    panel = _panels(scene, stories[-1], goal)[0]
    assert panel.step == "step 5 of 5, 5 of 10 ended"
    assert not panel.ended
    alone = [story._replace(**{f: getattr(story, f)[:, :1] for f in story._fields}) for story in stories]
    panel = _panels(scene, alone[-1], None)[0]
    assert (panel.step, panel.value, panel.ended) == ("step 3 of 5, ended", "return -0.3", True)


@pytest.mark.usefixtures("opengl_works")
def test_pictures_of_the_half_cheetah(cheetah: Path, command: Command, tmp_path: Path) -> None:
    code, out, err = command("render", cheetah, "--steps", "1", "--fps", "10")
    assert code == 0, err
    assert out.splitlines() == [str(cheetah / f"videos/adaptation.{kind}") for kind in ("mp4", "gif", "png")]
    assert "frame 6/6" in err
    film = frames(cheetah / "videos/adaptation.mp4")
    assert film.shape == (6, 2 * (240 + 46 + 57 + 16), 2 * (320 + 16), 3)
    pictures = film[:, 65:305, 8:328].astype(float)
    assert (np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3)) > 0.5).all()
    forward, backward = film[:, 65:305, 8:328], film[:, 424:664, 8:328]
    assert np.abs(forward[0].astype(float) - backward[0]).mean() > 0.5  # other start states
    assert np.abs(film[0, 65:305, 8:328].astype(float) - film[0, 65:305, 344:664]).mean() < 1  # the same one


def test_a_checkpoint_alone_will_do(navigation: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.pt").write_bytes((navigation / "checkpoint.pt").read_bytes())
    paths = maml_rl.render(tmp_path / "alone.pt", steps=0, tasks=1)
    assert paths[0] == tmp_path / "videos/adaptation.mp4"


def test_what_cannot_be_filmed_is_named(navigation: Path, tmp_path: Path) -> None:
    before = files(navigation)
    for wrong, said in (
        ({"fps": 0}, "fps = 0: give 1 to 100"),
        ({"tasks": 0}, r"evaluation\.tasks"),
        ({"steps": -1}, r"evaluation\.steps"),
        ({"out": navigation / "config.toml"}, "is a file: give the name of a folder"),
        ({"split": "far"}, "no held-out tasks with split='far'"),
    ):
        with pytest.raises(InputError, match=said):
            maml_rl.render(navigation, **wrong)
    with pytest.raises(InputError, match="there is no run folder"):
        maml_rl.render(tmp_path / "nothing")
    assert files(navigation) == before
