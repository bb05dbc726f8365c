"""Adam as a function is torch.optim.Adam, and changes nothing that it is given."""

import pytest
import torch
from alone import adam_step

from maml_rl.core import adam
from maml_rl.core.tree import Params, map_tensors, stack


def draw(seed: int, dtype: torch.dtype) -> Params:
    random = torch.Generator().manual_seed(seed)
    shapes = {"b": (), "a": (3,), "w": (2, 4)}
    return {name: torch.randn(shape, generator=random, dtype=dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maximise", [False, True])
def test_it_is_torchs_adam_bit_for_bit(maximise: bool, dtype: torch.dtype) -> None:
    theta, state = draw(0, dtype), dict[str, torch.Tensor]()
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=0.03, maximize=maximise)
    for step in range(1, 8):
        gradient = draw(step, dtype)
        theta, state = adam_step(theta, state, gradient, 0.03, maximise)
        for name, leaf in leaves.items():
            leaf.grad = gradient[name].clone()
        optimiser.step()
        assert all(torch.equal(theta[name], leaf) for name, leaf in leaves.items())
        for name, leaf in leaves.items():
            own = optimiser.state[leaf]
            assert all(torch.equal(state[f"{key}.{name}"], own[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert float(state["step.a"]) == 7
    assert len(state) == 9


def test_the_first_steps_by_hand() -> None:
    one = {"x": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    gradient = {"x": torch.tensor([4.0, -0.5], dtype=torch.float64)}
    down, state = adam_step(one, {}, gradient, 0.1, False)
    torch.testing.assert_close(down["x"], torch.tensor([0.9, 1.1], dtype=torch.float64))  # lr times the sign
    up, _ = adam_step(one, {}, gradient, 0.1, True)
    torch.testing.assert_close(up["x"], torch.tensor([1.1, 0.9], dtype=torch.float64))
    second, _ = adam_step(down, state, {"x": torch.zeros(2, dtype=torch.float64)}, 0.1, False)
    mean = 0.9 * 0.1 * gradient["x"] / (1 - 0.9**2)
    square = 0.999 * 0.001 * gradient["x"] ** 2 / (1 - 0.999**2)
    torch.testing.assert_close(second["x"], down["x"] - 0.1 * mean / (square.sqrt() + 1e-8))


def test_nothing_that_is_given_changes() -> None:
    theta, state = adam_step(draw(0, torch.float32), {}, draw(1, torch.float32), 0.1, False)
    given = {"theta": theta, "state": state, "gradient": draw(2, torch.float32)}
    before = {key: {name: value.clone() for name, value in tree.items()} for key, tree in given.items()}
    moved, after = adam_step(theta, state, given["gradient"], 0.1, False)
    for key, tree in given.items():
        assert all(torch.equal(tree[name], before[key][name]) for name in tree), key
    assert not any(moved[name].data_ptr() == theta[name].data_ptr() for name in theta)
    assert not any(after[name].data_ptr() == state[name].data_ptr() for name in state)


def test_it_builds_no_graph() -> None:
    theta = {"x": torch.ones(2, requires_grad=True)}
    moved, state = adam_step(theta, {}, {"x": torch.ones(2, requires_grad=True)}, 0.1, False)
    assert not moved["x"].requires_grad
    assert not any(value.requires_grad for value in state.values())


def test_each_of_several_seeds_steps_as_it_does_alone() -> None:
    each = [(draw(seed, torch.float32), dict[str, torch.Tensor]()) for seed in range(3)]
    theta, state = stack([params for params, _ in each]), dict[str, torch.Tensor]()
    for step in range(1, 4):
        gradients = [draw(10 * step + seed, torch.float32) for seed in range(3)]
        theta, state = adam.adam_step(theta, state, stack(gradients), 0.03, False)
        each = [adam_step(*one, gradient, 0.03, False) for one, gradient in zip(each, gradients, strict=True)]
        for seed, alone in enumerate(each):
            for found, expected in zip(map_tensors(lambda x, s=seed: x[s], (theta, state)), alone, strict=True):
                assert found.keys() == expected.keys()
                assert all(torch.equal(found[name], expected[name]) for name in expected)
