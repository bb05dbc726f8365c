"""The Gaussian against torch.distributions, and its Fisher matrix against the Hessian of the KL."""

import torch
from torch.distributions import Independent, kl_divergence
from torch.distributions import Normal as TorchNormal

from maml_rl.rl.distributions import Normal


def pair() -> tuple[Normal, Normal, Independent, Independent]:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, mean2, log_std2 = 0.5 * torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    ours = Normal(mean, log_std), Normal(mean2, log_std2)
    theirs = [Independent(TorchNormal(d.mean, d.log_std.exp()), 1) for d in ours]
    return *ours, *theirs


def test_log_prob_sums_over_action_dimensions() -> None:
    one, _, reference, _ = pair()
    value = torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)
    torch.testing.assert_close(one.log_prob(value), reference.log_prob(value))


def test_kl_is_directed() -> None:
    one, two, first, second = pair()
    torch.testing.assert_close(one.kl(two), kl_divergence(first, second))
    assert not torch.allclose(one.kl(two), two.kl(one))


def test_kl_of_itself_is_zero() -> None:
    one = pair()[0]
    torch.testing.assert_close(one.kl(one), torch.zeros(7, dtype=torch.float64))


def test_entropy() -> None:
    one, _, reference, _ = pair()
    torch.testing.assert_close(one.entropy(), reference.entropy())


def test_sample_is_mean_plus_std_times_noise() -> None:
    noise = torch.ones(3)
    assert torch.equal(Normal(torch.zeros(3), torch.zeros(3)).sample(noise), noise)
    torch.testing.assert_close(Normal(torch.ones(3), torch.full((3,), 2.0).log()).sample(noise), torch.full((3,), 3.0))


def test_fisher_is_the_hessian_of_the_kl() -> None:
    one = pair()[0]
    old = Normal(one.mean[0], one.log_std[0])

    def kl(flat: torch.Tensor) -> torch.Tensor:
        return old.kl(Normal(flat[:3], flat[3:]))

    at = torch.cat([old.mean, old.log_std])
    vector = torch.linspace(-1, 1, 6, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(kl, at) @ vector
    torch.testing.assert_close(torch.cat(old.fisher(Normal(vector[:3], vector[3:]))), expected)
