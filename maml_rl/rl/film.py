"""Films of adaptation: the same task before and after gradient steps, side by side."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from maml_envs import InputError, TaskEnv
from maml_rl.config.rl import Config, Evaluation
from maml_rl.config.toml import with_evaluation
from maml_rl.core.tree import Params
from maml_rl.machine.progress import ProgressLine
from maml_rl.rl.episodes import Carry, Transition, begin, control_step
from maml_rl.rl.explore import keys_at
from maml_rl.rl.held_out import explore_held_out, tasks_of
from maml_rl.rl.learner import Learner, environments
from maml_rl.rl.policies import Policy

if TYPE_CHECKING:
    from maml_rl.pictures.panels import Panel

TASKS = 2
"""Held-out tasks in a film, unless it is told otherwise or fewer step at once."""

EPISODES_ON_A_MAP = 10
"""Episodes in each panel where a map is all there is to see; else there is one."""

FPS = 20
"""Frames a second, one for each control step."""


class Scene(NamedTuple):
    """Episodes to film: a task before adaptation, after one step ... in P panels, and then the next task in as many."""

    env: TaskEnv
    policy: Policy
    observe_task: bool  # whether the policy observes the task
    columns: int  # panels of a task
    tasks: Tensor  # (P, *task_shape)
    params: Params  # P stacked
    noise: Tensor  # (P, B, T, act) the same for all panels of a task
    seeds: Tensor  # (P, B) the same for all panels of a task


class Story(NamedTuple):
    """State of a scene after step t."""

    live: Tensor  # (P, B) bool: the episode goes on
    lengths: Tensor  # (P, B) steps of each episode
    returns: Tensor  # (P, B) undiscounted
    paths: Tensor | None  # (P, B, t + 1, 1 or 2) NaN after an episode's end


def _places(scene: Scene) -> Tensor | None:
    places = scene.env.positions()
    if places is None:
        return None
    # A copy: an environment may go on in the tensor that it returned.
    return places.to(scene.noise.device, torch.float64, copy=True).reshape(*scene.seeds.shape, 1, -1)


def _after(story: Story, transition: Transition, following: Carry, places: Tensor | None) -> Story:
    """Return the story with one more step, which led to places (P, B, 1, 1 or 2)."""
    paths = None
    if story.paths is not None and places is not None:
        paths = torch.cat([story.paths, places.where(transition.live[..., None, None], torch.nan)], 2)
    return Story(
        following.live,
        story.lengths + transition.live,
        story.returns + torch.where(transition.live, transition.reward, 0.0),
        paths,
    )


@torch.no_grad()
def play(scene: Scene) -> Iterator[Story]:
    """Yield the film's state at reset and after every step; the environment can be drawn in it until the next one."""
    constants, carry = begin(scene.env, scene.params, scene.tasks, scene.seeds, scene.observe_task)
    nothing = torch.zeros(scene.seeds.shape, device=carry.live.device)
    story = Story(carry.live, nothing.long(), nothing, _places(scene))
    yield story
    for t in range(scene.noise.shape[2]):
        carry, transition = control_step(scene.env, scene.policy, constants, carry, scene.noise[:, :, t])
        story = _after(story, transition, carry, _places(scene))
        yield story
        if not story.live.any():
            break
    else:
        scene.env.raise_deferred()


def _panels_of(env: TaskEnv, steps: int) -> int:
    """Return how many environments show a task after 0 to ``steps`` gradient steps."""
    return (steps + 1) * (EPISODES_ON_A_MAP if env.map_only else 1)


def settings(env: TaskEnv, config: Config, where: str, **given: int | None) -> Evaluation:
    """Return how a film evaluates; where the number of tasks is not given, ``TASKS`` or as many as step at once.

    Raises:
        InputError: A number is out of range; ``where`` says whose.
    """
    told = given.get("tasks")
    chosen = with_evaluation(config, where, **given | {"tasks": TASKS if told is None else told}).evaluation
    if told is not None or env.max_batch is None:
        return chosen
    return chosen.model_copy(update={"tasks": min(TASKS, max(1, env.max_batch // _panels_of(env, chosen.steps)))})


def check(env: TaskEnv, chosen: Evaluation, split: str) -> None:
    """Look for what would stop a video, before anything is trained or written: one reset, one picture.

    Raises:
        InputError: The environment cannot be drawn, or not so many panels at once.
    """
    panels = chosen.tasks * _panels_of(env, chosen.steps)
    if env.max_batch is not None and panels > env.max_batch:
        raise InputError(
            f"{chosen.tasks} tasks after 0 to {chosen.steps} steps are {panels} environments, more than the "
            f"{env.max_batch} that step at once: draw fewer tasks or steps (in training, evaluation.steps), or raise "
            "vector.vector_size"
        )
    env.reset(tasks_of(env, 1, split).to(env.device), torch.zeros(1, dtype=torch.int64, device=env.device))
    places = env.positions()
    name = type(env).__name__
    if places is not None and (places.ndim != 2 or len(places) != 1 or places.shape[1] not in (1, 2)):
        raise InputError(
            f"{name}.positions() returned {tuple(places.shape)} for one environment: return (1, 1) or (1, 2)"
        )
    goals = env.goal_positions(tasks_of(env, 2, split))
    if places is not None and goals is not None and tuple(goals.shape) != (2, places.shape[1]):
        raise InputError(
            f"{name}.goal_positions(tasks) returned {tuple(goals.shape)} for two tasks: return (2, {places.shape[1]}), "
            "in the coordinates of positions()"
        )
    if not env.map_only:
        env.render(0)
    elif places is None:
        raise InputError(f"{name} has map_only = True and no positions(): define it, or render(index)")


def adapt(learner: Learner, env: TaskEnv, theta: Params, chosen: Evaluation, split: str) -> Scene:
    """Adapt to held-out tasks as ``evaluate`` does.

    Every panel of a task starts as, and draws the noise of, the first episodes that the task was adapted on.
    """
    draw, exploration, _ = explore_held_out(learner, theta, chosen.tasks, chosen.episodes, chosen.steps, split)
    columns, shown = chosen.steps + 1, EPISODES_ON_A_MAP if env.map_only else 1
    first = keys_at(draw, 0)
    noise, seeds = learner.sampler.draw(exploration.params_by_step[0], shown, first, draw.axis)
    params = {name: [each[name] for each in exploration.params_by_step] for name in exploration.params_by_step[0]}
    return Scene(
        env,
        learner.policy,
        learner.sampler.observe_task,
        columns,
        draw.tasks.repeat_interleave(columns, 0),
        {name: torch.stack(values, 1).flatten(0, 1) for name, values in params.items()},
        noise.repeat_interleave(columns, 0),
        seeds.repeat_interleave(columns, 0),
    )


def film(scene: Scene, path: Path, fps: int, quiet: bool = False) -> list[Path]:
    """Play a scene twice: first to see how long it is and how far it goes, then to draw it.

    Raises:
        InputError: The second time something else happened.
    """
    # Pictures need libraries that nothing else does.
    from maml_rl.pictures.panels import draw_frame, limits_of
    from maml_rl.pictures.video import Video

    (end,) = deque(play(scene), maxlen=1)
    goals = scene.env.goal_positions(scene.tasks.to(scene.env.device))
    limits = None if end.paths is None else limits_of(end.paths.cpu(), None if goals is None else goals.cpu())
    with Video(path, fps) as video, ProgressLine("frame", int(end.lengths.max()) + 1, quiet=quiet) as line:
        for story in play(scene):
            video.add(draw_frame(_panels(scene, story, goals), scene.columns, limits))
            line.advance("")
        if not torch.equal(story.returns, end.returns):
            raise InputError(
                "played again, the same episodes gave other returns: an episode may depend on its task, its seed and "
                "its actions alone; `maml-rl check-env` says more"
            )
    return [path, video.gif, video.poster]


def _panels(scene: Scene, story: Story, goals: Tensor | None) -> "list[Panel]":
    from maml_rl.pictures import after
    from maml_rl.pictures.panels import Panel

    panels, horizon = [], scene.noise.shape[2]
    for p, (live, lengths, returns) in enumerate(zip(story.live, story.lengths, story.returns, strict=True)):
        episodes, ended = len(live), int((~live & (lengths < horizon)).sum())
        step = f"step {int(lengths.max())} of {horizon}"
        if ended:
            step += ", ended" if episodes == 1 else f", {ended} of {episodes} ended"
        panels.append(
            Panel(
                task=scene.env.describe(scene.tasks[p].cpu()),
                after=after(p % scene.columns),
                step=step,
                value=f"{'return' if episodes == 1 else 'mean return'} {float(returns.mean()):.1f}",
                ended=ended == episodes,
                picture=None if scene.env.map_only else scene.env.render(p),
                paths=None if story.paths is None else story.paths[p].cpu().numpy(),
                goal=None if goals is None else goals[p].double().cpu().numpy(),
            )
        )
    return panels


@contextmanager
def _drawable(config: Config) -> Iterator[tuple[TaskEnv, Evaluation]]:
    """Yield an environment that was checked, and the settings of a film of training."""
    with closing(environments(config, copies=1, drawn=True)[0]) as env:
        chosen = settings(env, config, "evaluation.film")
        check(env, chosen, "in")
        yield env, chosen


def refuse_undrawable(config: Config) -> None:
    """Look for what would stop ``gif`` in training, before it starts.

    Raises:
        InputError: The environment cannot be drawn, or not so many panels at once.
    """
    with _drawable(config):
        pass


def gif(learner: Learner, theta: Params) -> bytes:
    """A film of parameters that are not saved yet, as the bytes of a gif; see ``render``."""
    with _drawable(learner.config) as (env, chosen), TemporaryDirectory() as folder:
        scene = adapt(learner, env, theta, chosen, "in")
        return film(scene, Path(folder) / "film.mp4", FPS, quiet=True)[1].read_bytes()
