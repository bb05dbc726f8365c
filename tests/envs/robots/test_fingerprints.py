"""Returns of a random policy in either unit, which say whether published runs divided their actions by ten or not."""

import math

import pytest
import torch

import maml_envs
from maml_envs import random

# Published logs at iteration 0, before adaptation, stand near the first of these and far from the second, but for
# half-cheetah-vel: -38.3, -390.8, -53.4, -965.8, 108.1, -2.1.
AS_THEY_ARE = {
    "half-cheetah-vel": (-331, 4),
    "ant-dir": (-62, 0),
    "ant-goal": (-882, 0),
    "humanoid-dir": (111, 0),
    "walker-rand-params": (-0.5, 0.3),
}
OVER_TEN = {
    "half-cheetah-vel": (-315, 0),
    "ant-dir": (191, 0),
    "ant-goal": (-532, 0),
    "humanoid-dir": (164, 0),
    "walker-rand-params": (14.3, 0.4),
}


def returns(name: str, unit: float, episodes: int, seed: int = 0) -> torch.Tensor:
    """Of standard normal actions in a unit, a task of its own in each episode."""
    env = maml_envs.make(name, threads=2)
    seeds = random.fold_in(torch.arange(episodes), seed)
    tasks = env.sample_tasks(episodes, torch.Generator().manual_seed(seed))
    noise = random.normal(random.fold_in(seeds, 1), (env.horizon, env.action_width)).float()
    env.reset(tasks, seeds)
    live, total = torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes, dtype=torch.float64)
    for t in range(env.horizon):
        step = env.step(noise[:, t] / unit)
        total += torch.where(live, step.reward, 0.0)
        live &= ~step.terminated
        if not live.any():
            break
    env.close()
    return total


@pytest.mark.parametrize("unit", [1.0, 10.0])
@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_a_random_policy(name: str, unit: float) -> None:
    (value, error), (other, _) = (table[name] for table in ((AS_THEY_ARE, OVER_TEN)[:: 1 if unit == 1 else -1]))
    found = returns(name, unit, 200 if name == "walker-rand-params" else 60)
    own = float(found.std()) / math.sqrt(len(found))
    # The value is itself the mean of 60 episodes, unless its error is given.
    allowed = 3 * math.hypot(own, error or own) + 0.5
    assert abs(float(found.mean()) - value) < allowed
    assert name == "half-cheetah-vel" or abs(float(found.mean()) - other) > allowed


@pytest.mark.parametrize(("unit", "expected"), [(1.0, -31.0), (10.0, -0.6)])
def test_half_cheetah_forward_or_backward_pays_the_control_alone(unit: float, expected: float) -> None:
    """-0.05 * 6 * 200 * E clip(z / unit, +-1)^2, as d vx has mean 0 over both directions."""
    inside = math.erf(unit / math.sqrt(2)) - 2 * unit * math.exp(-(unit**2) / 2) / math.sqrt(2 * math.pi)
    beyond = unit**2 * (1 - math.erf(unit / math.sqrt(2)))
    exact = -0.05 * 6 * 200 * (inside + beyond) / unit**2
    assert exact == pytest.approx(expected, abs=0.05)
    found = returns("half-cheetah-dir", unit, 200)
    assert abs(float(found.mean()) - exact) < 3.5 * float(found.std()) / math.sqrt(200)
