"""`render` films what `evaluate` plays: real runs, read back from the video, and its drawings at the pixel."""

import importlib.util
from pathlib import Path
from typing import Any

import films
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from tiny import Command, files, tiny

import maml_rl
from maml_envs import InputError
from maml_envs.navigation import Navigation
from maml_rl import meta_train
from maml_rl.config.rl import Evaluation
from maml_rl.config.toml import with_evaluation
from maml_rl.evaluate import load_learner
from maml_rl.pictures.panels import FONT, Panel, draw_frame, draw_panel, limits_of, plane, shortened, strip, ticks
from maml_rl.pictures.style import BLUE, ORANGE
from maml_rl.rl.film import Scene, _panels, adapt, check, film, play, settings
from maml_rl.rl.held_out import explore_held_out


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


def scene_of(run: Path, tasks: int = 2, steps: int = 2, episodes: int = 10) -> Scene:
    learner, theta = load_learner(run)
    chosen = with_evaluation(learner.config, "test", tasks=tasks, steps=steps, episodes=episodes).evaluation
    return adapt(learner, learner.env, theta, chosen, "in")


def test_a_map_of_navigation(navigation: Path, tmp_path: Path) -> None:
    before = files(navigation)
    paths = maml_rl.render(navigation, out=tmp_path / "out")
    assert [path.name for path in paths] == ["adaptation.mp4", "adaptation.gif", "adaptation.png"]
    assert files(navigation) == before
    seen, about = films.read(paths[0])
    assert seen.shape == (6, 2 * (300 + 57 + 16), 3 * (300 + 16), 3)  # 5 steps and the start; 2 tasks, k = 0, 1, 2
    assert (about["fps"], about["codec"], about["pix_fmt"].split("(")[0]) == (20, "h264", "yuv420p")
    changes = np.abs(np.diff(seen.astype(float), axis=0)).mean((1, 2, 3))
    assert (changes > 0.1).all()
    poster = np.asarray(Image.open(paths[2]), float)
    assert np.abs(seen[-1] - poster).mean() < 1.5 < np.abs(seen[0] - poster).mean()
    with Image.open(paths[1]) as gif:
        assert gif.is_animated
        assert gif.info["duration"] == 100
    again = maml_rl.render(navigation, out=tmp_path / "out", steps=0, tasks=1)
    assert [path.name for path in again] == ["adaptation_2.mp4", "adaptation_2.gif", "adaptation_2.png"]
    assert films.read(again[0])[0].shape[1:] == (373 + 1, 316, 3)


def test_returns_are_those_that_evaluation_adapts_on(navigation: Path) -> None:
    scene = scene_of(navigation)
    *_, end = play(scene)
    learner, theta = load_learner(navigation)
    _, exploration, _ = explore_held_out(learner, theta, 2, 10, 2, "in")
    assert torch.allclose(end.returns[::3], exploration.outcomes[0].returns, atol=1e-5)
    assert not torch.allclose(end.returns[1::3], end.returns[::3], atol=1e-2)
    value = _panels(scene, end, None)[3].value  # the second task before adaptation
    assert value == f"mean return {float(exploration.outcomes[0].returns[1].mean()):.1f}"


def test_a_film_of_an_oracle_is_of_a_policy_that_observes_the_task(tmp_path: Path) -> None:
    run = meta_train(tiny(method="oracle", iterations=1), tmp_path / "run", quiet=True)
    *_, end = play(scene_of(run, steps=1))
    learner, theta = load_learner(run)
    _, exploration, _ = explore_held_out(learner, theta, 2, 10, 1, "in")
    assert exploration.batches[0].observations.shape[-1] == 4
    assert torch.allclose(end.returns[::2], exploration.outcomes[0].returns, atol=1e-5)


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

        def control(self, action: torch.Tensor) -> torch.Tensor:
            return action

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
    seen, _ = films.read(cheetah / "videos/adaptation.mp4")
    assert seen.shape == (6, 2 * (240 + 46 + 57 + 16), 2 * (320 + 16), 3)
    pictures = seen[:, 65:305, 8:328].astype(float)
    assert (np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3)) > 0.5).all()


@pytest.mark.usefixtures("opengl_works")
def test_panels_of_a_task_start_as_one_and_part_when_they_act(cheetah: Path) -> None:
    scene = scene_of(cheetah, steps=1, episodes=2)
    for t, story in enumerate(play(scene)):
        forward, adapted, backward, _ = (panel.picture for panel in _panels(scene, story, None))
        assert np.array_equal(forward, adapted) == (t == 0)
        assert not np.array_equal(forward, backward)  # another start state
    assert [panel.task for panel in _panels(scene, story, None)] == ["forward"] * 2 + ["backward"] * 2
    assert [panel.after for panel in _panels(scene, story, None)] == ["before adaptation", "after 1 step"] * 2


def test_what_happens_otherwise_the_second_time_is_refused(navigation: Path, tmp_path: Path) -> None:
    scene = scene_of(navigation, tasks=1, steps=0)
    drift = iter(range(100))

    class Drifting:
        """Walks further in every step that it ever made."""

        def __call__(self, params: object, observation: torch.Tensor) -> "Drifting":
            self.move = torch.full_like(observation, 0.01 * next(drift))
            return self

        def control(self, action: torch.Tensor) -> torch.Tensor:
            return action

        def sample(self, noise: torch.Tensor) -> torch.Tensor:
            return self.move

    with pytest.raises(InputError, match=r"played again, the same episodes gave other returns: .* `maml-rl check-env`"):
        film(scene._replace(policy=Drifting()), tmp_path / "film.mp4", 20, quiet=True)
    assert not list(tmp_path.iterdir())


def test_gymnasium_environments_draw_themselves(folder: Path) -> None:
    config = tiny(
        env="gymnasium:Pendulum-v1", iterations=1, vector={"task_ranges": {"g": [5, 15]}}, evaluation={"steps": 1}
    )
    run = meta_train(config, folder / "pendulum", quiet=True)
    pygame = importlib.util.find_spec("pygame")
    if pygame is None:
        with pytest.raises(InputError, match=r"Pendulum-v1' cannot draw itself here: pygame is not installed"):
            maml_rl.render(run)
        assert not (run / "videos").exists()
        pytest.skip("the classic environments draw with pygame")
    video, _, _ = maml_rl.render(run, tasks=1)
    frames, _ = films.read(video)
    assert frames.shape == (6, 240 + 57 + 16 + 1, 2 * (320 + 16), 3)
    red = (frames[:, 65:, :, 0].astype(int) - frames[:, 65:, :, 2]) > 60  # the rod
    assert (red[:, :, :336].sum((1, 2)) > 200).all()
    assert (red[:, :, 336:].sum((1, 2)) > 200).all()


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(folder: Path) -> None:
    run = meta_train(tiny(env="bandit", iterations=1), folder / "bandit", quiet=True)
    before = files(run)
    with pytest.raises(InputError, match=r"Bandit cannot draw itself: define render\(index\) to return an RGB array"):
        maml_rl.render(run)
    assert files(run) == before
    assert not (run / "videos").exists()


class Odd(Navigation):
    """Navigation with something wrong in its hooks."""

    wrong: torch.Tensor | None = None

    def positions(self) -> torch.Tensor | None:
        return self.wrong


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(1, 3), r"Odd.positions\(\) returned \(1, 3\) for one environment: return \(1, 1\) or \(1, 2\)"),
        (torch.zeros(1), r"Odd.positions\(\) returned \(1,\)"),
        (torch.zeros(2, 2), r"Odd.positions\(\) returned \(2, 2\)"),
        (None, r"Odd has map_only = True and no positions\(\): define it, or render\(index\)"),
    ],
)
def test_hooks_that_are_wrong_are_named(wrong: torch.Tensor | None, said: str) -> None:
    env = Odd()
    env.wrong = wrong
    with pytest.raises(InputError, match=said):
        check(env, Evaluation(tasks=1, steps=0), "in")


def test_more_panels_than_environments() -> None:
    env = Navigation()
    env.max_batch = 59
    with pytest.raises(
        InputError, match="2 tasks after 0 to 2 steps are 60 environments, more than the 59 that step at once"
    ):
        check(env, Evaluation(tasks=2, steps=2), "in")
    env.max_batch = 60
    check(env, Evaluation(tasks=2, steps=2), "in")


@pytest.mark.parametrize(("at_once", "tasks"), [(None, 2), (60, 2), (59, 1), (7, 1)])
def test_a_film_has_as_many_tasks_as_step_at_once(at_once: int | None, tasks: int) -> None:
    """Navigation's tasks after 0, 1 and 2 steps, ten episodes each: 30 environments a task."""
    env = Navigation()
    env.max_batch = at_once
    config = tiny(evaluation={"steps": 2})
    assert settings(env, config, "film").tasks == tasks
    assert settings(env, config, "film", tasks=3).tasks == 3


def centre(image: Image.Image, colour: str, near: int = 12) -> tuple[float, float]:
    """Mean column and row of the pixels of a colour."""
    off = np.abs(np.asarray(image, int) - np.array(ImageColor.getrgb(colour))).max(-1)
    rows, columns = np.nonzero(off < near)
    assert len(rows), f"no pixel is {colour}"
    return float(columns.mean()), float(rows.mean())


def test_the_dot_of_a_strip_is_where_the_robot_is() -> None:
    limits = np.array([[-10.0], [10.0]])

    def dot(x: float) -> float:
        standing = np.full((1, 2, 1), x)  # a line of no length
        return centre(strip(standing, None, limits, (201, 46)), BLUE)[0]

    # pixel 0 is -10, pixel 200 is 10
    assert [dot(x) for x in (-5.0, 2.0, 5.0)] == pytest.approx([50, 120, 150], abs=1)
    drawn = strip(np.array([[[0.0], [8.0]]]), np.array([-5.0]), limits, (201, 46))
    assert centre(drawn, ORANGE)[0] == pytest.approx(50, abs=1)
    seen = np.abs(np.asarray(drawn, int) - np.array(ImageColor.getrgb(BLUE))).max(-1) < 12
    assert (np.nonzero(seen.any(0))[0][[0, -1]]).tolist() == pytest.approx([101, 186], abs=2)  # from the tick at 0


def test_a_map_has_right_to_the_right_and_up_above() -> None:
    limits = np.array([[-1.0, -1.0], [1.0, 1.0]])
    path = np.array([[[0.0, 0.0], [0.5, 0.25], [np.nan, np.nan]]])  # ended at (0.5, 0.25)
    drawn = plane(path, np.array([-0.5, 0.5]), limits, 201)
    assert centre(drawn, BLUE) == pytest.approx((150, 75), abs=1)
    assert centre(drawn, ORANGE) == pytest.approx((50, 50), abs=1.5)


def test_limits_hold_paths_and_goals_with_room() -> None:
    # x from -1 to 3, y from 0 to 1: a square of half side 2, times 1.25, around (1, 0.5)
    places = np.array([[[-1.0, 0.0], [1.0, 1.0], [np.nan, np.nan]]])
    assert limits_of(places, [[3.0, 0.5]]).tolist() == [[-1.5, -2.0], [3.5, 3.0]]
    assert limits_of(np.zeros((1, 1, 1)), None).tolist() == [[-0.00125], [0.00125]]  # nobody moved


def test_ticks_are_round_and_few() -> None:
    assert ticks(-25, 25) == [-20, -10, 0, 10, 20]
    assert ticks(-0.3, 1.1) == [-0.0, 0.5, 1.0]
    assert ticks(0, 6) == [0, 1, 2, 3, 4, 5, 6]


def panel(**changes: Any) -> Panel:
    picture = np.full((240, 320, 3), 100, np.uint8)
    return Panel("a task", "after 1 step", "step 1 of 2", "return 1.0", False, picture, None, None)._replace(**changes)


def test_an_ended_episode_is_pale() -> None:
    live, ended = (np.asarray(draw_panel(panel(ended=each), None)) for each in (False, True))
    assert (live[57:] == 100).all()
    assert (ended[57:] == 185).all()  # 0.45 of 100 and 0.55 of 255


def test_panels_stand_in_rows_of_even_size() -> None:
    small = np.zeros((50, 100, 3), np.uint8)  # as large as it fits: 320 x 160, in the middle
    frame = draw_frame([panel(), panel(picture=small), panel(ended=True)], 2, None)
    assert frame.size == (2 * 336, 2 * 313)  # 240 + 3 lines of 19 + 2 margins of 8
    pixels = np.asarray(frame)
    column = pixels[65:305, 344 + 160, 0]
    assert np.nonzero(column < 50)[0][[0, -1]].tolist() == [40, 199]
    assert (pixels[400, 10] == 185).all()
    assert (pixels[400, 400] == 255).all()  # no fourth
    assert draw_frame([panel()], 1, None).size == (336, 314)


def test_a_long_task_is_cut_with_dots() -> None:
    text = shortened("word " * 50, FONT, 200)
    assert text.endswith("...")
    assert 170 < FONT.getlength(text) <= 200
    assert shortened("word", FONT, 200) == "word"


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
