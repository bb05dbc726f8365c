"""Counter-based random numbers against SplitMix64 in Python's unbounded integers, and their statistics."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_envs.random import fold_in, normal, uniform

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
SEEDS = [0, 1, 2, -1, 1234567, 2**31, 2**63 - 1, -(2**63), -7046029254386353131]


def mix(value: int) -> int:
    value = (value ^ (value >> 30)) * MIX_1 & WORD
    value = (value ^ (value >> 27)) * MIX_2 & WORD
    return value ^ (value >> 31)


def unmix(value: int) -> int:
    """The argument for which mix gives value: each of its steps is a bijection of 64-bit words."""
    value = value ^ (value >> 31) ^ (value >> 62)
    value = value * pow(MIX_2, -1, 2**64) & WORD
    value = value ^ (value >> 27) ^ (value >> 54)
    value = value * pow(MIX_1, -1, 2**64) & WORD
    return value ^ (value >> 30) ^ (value >> 60)


def split_mix(seed: int, count: int) -> list[int]:
    """The generator as it is published, with a state that moves on."""
    words, state = [], seed & WORD
    for _ in range(count):
        state = (state + GOLDEN) & WORD
        words.append(mix(state))
    return words


def signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def int64(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def test_the_reference_gives_the_published_words() -> None:
    assert split_mix(1234567, 5) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert all(unmix(mix(word)) == word for word in (0, 1, WORD, GOLDEN, MIX_1))


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_is_split_mix_of_each_seed(seed: int) -> None:
    expected = [((word >> 12) + 0.5) * 2.0**-52 for word in split_mix(seed, 12)]
    drawn = uniform(int64(seed), (3, 4))
    assert drawn.dtype == torch.float64
    assert drawn.shape == (1, 3, 4)
    assert drawn.flatten().tolist() == expected


def test_uniform_stays_inside_the_open_interval_at_the_ends_of_the_range() -> None:
    least, greatest = (int64(signed(unmix(word) - GOLDEN & WORD)) for word in (0, WORD))
    assert uniform(least, ()).item() == 2.0**-53
    assert uniform(greatest, ()).item() == 1 - 2.0**-53
    assert normal(greatest, ()).item() == pytest.approx(8.2095361516, rel=1e-9)
    assert normal(least, ()).item() == pytest.approx(-8.2095361516, rel=1e-9)


@pytest.mark.parametrize("data", [0, 1, -1, 7, 2**40, 2**63 - 1, -(2**63)])
def test_fold_mixes_the_seed_then_the_data(data: int) -> None:
    expected = [signed(mix(mix(seed + GOLDEN & WORD) ^ (data * MIX_2 + GOLDEN & WORD))) for seed in SEEDS]
    assert fold_in(int64(*SEEDS), data).tolist() == expected
    assert fold_in(int64(*SEEDS), torch.tensor(data)).tolist() == expected
    assert fold_in(torch.tensor(SEEDS[4]), data).tolist() == expected[4]


def test_fold_broadcasts() -> None:
    seeds, tasks = int64(*SEEDS), torch.arange(4)
    grid = fold_in(seeds.unsqueeze(-1), tasks)
    assert grid.shape == (9, 4)
    assert grid.dtype == torch.int64
    assert all(grid[i, k] == fold_in(seeds[i], int(k)) for i in range(9) for k in tasks)


def test_fold_gives_no_seed_twice() -> None:
    grid = fold_in(torch.arange(300).unsqueeze(-1), torch.arange(300))
    assert grid.unique().numel() == 300 * 300
    nested = fold_in(fold_in(torch.arange(40).reshape(-1, 1, 1), torch.arange(40).unsqueeze(-1)), torch.arange(40))
    assert nested.unique().numel() == 40**3


def test_one_bit_of_seed_or_data_changes_half_of_the_bits() -> None:
    seeds, data = torch.arange(500).unsqueeze(-1), torch.arange(3, 503).unsqueeze(-1)
    bit = torch.ones(64, dtype=torch.int64) << torch.arange(64)
    for changed in (fold_in(seeds ^ bit, data), fold_in(seeds, data ^ bit)):
        flipped = np.bitwise_count((changed ^ fold_in(seeds, data)).numpy().view(np.uint64))
        # The mean of 500 binomials of 64 fair bits: 32 within 5 of its standard deviations.
        assert np.abs(flipped.mean(0) - 32).max() < 5 * 4 / math.sqrt(500)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_row_depends_on_its_own_seed_alone(draw) -> None:
    seeds = fold_in(torch.tensor(3), torch.arange(60))
    whole = draw(seeds, (5, 2))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(seeds[order], (5, 2)), whole[order])
    assert torch.equal(torch.cat([draw(part, (5, 2)) for part in seeds.split([1, 22, 37])]), whole)
    assert torch.equal(draw(seeds.reshape(3, 20), (5, 2)), whole.reshape(3, 20, 5, 2))
    assert torch.equal(draw(seeds[7], (5, 2)), whole[7])


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_shorter_draw_is_the_start_of_a_longer_one(draw) -> None:
    seeds = torch.arange(9)
    assert torch.equal(draw(seeds, (3, 4)), draw(seeds, (8, 4))[:, :3])
    assert draw(seeds, (0,)).shape == (9, 0)


def test_drawing_leaves_torch_random_state_alone() -> None:
    before = torch.get_rng_state()
    normal(fold_in(torch.arange(5), 1), (3,))
    assert torch.equal(torch.get_rng_state(), before)


def within(value: float, expected: float, deviation: float) -> bool:
    return abs(value - expected) < 4.5 * deviation


def test_uniform_moments_and_evenness() -> None:
    numbers = uniform(torch.arange(2000), (100,)).flatten()
    n = numbers.numel()
    assert within(numbers.mean().item(), 1 / 2, math.sqrt(1 / 12 / n))
    assert within(numbers.var().item(), 1 / 12, math.sqrt(1 / 180 / n))
    counts = torch.histc(numbers, 100, 0, 1)
    chi_squared = ((counts - n / 100) ** 2 / (n / 100)).sum().item()
    assert within(chi_squared, 99, math.sqrt(2 * 99))


def test_normal_moments_and_tails() -> None:
    numbers = normal(torch.arange(4000), (100,)).flatten()
    n = numbers.numel()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert within((numbers**power).mean().item(), expected, math.sqrt(variance / n)), power
    for bound in (1, 2, 3, 4):
        chance = math.erfc(bound / math.sqrt(2))
        for side in (numbers > bound, numbers < -bound):
            assert within(side.double().mean().item(), chance / 2, math.sqrt(chance / 2 / n)), bound
    assert 4 < numbers.abs().max() < 6


def test_normal_inverts_the_distribution_function() -> None:
    seeds = torch.arange(200)
    for z, u in zip(normal(seeds, ()).tolist(), uniform(seeds, ()).tolist(), strict=True):
        assert 0.5 * math.erfc(-z / math.sqrt(2)) == pytest.approx(u, rel=1e-12)


def test_neighbouring_seeds_positions_and_folds_are_unrelated() -> None:
    seeds = torch.arange(20000)
    here = normal(seeds, (4,))
    streams = torch.cat(
        [here, normal(seeds + 1, (4,)), normal(fold_in(seeds, 0), (4,)), normal(fold_in(seeds, 1), (4,))], -1
    )
    correlation = torch.corrcoef(streams.T) - torch.eye(16, dtype=torch.float64)
    assert correlation.abs().max() < 5 / math.sqrt(20000)
