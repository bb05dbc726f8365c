"""Batch norm by the statistics of the batch alone, and its first two derivatives."""

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

EPS = 1e-5

_backward = torch.ops.aten.native_batch_norm_backward


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _of_channels(values: Tensor, x: Tensor) -> Tensor:
    """Return a number of each channel as it is broadcast over x."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


class _Fused(torch.autograd.Function):
    """y = w x' + b with x' = (x - mean) r, r = 1 / sqrt(variance + eps), of each channel."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        if x.is_contiguous():
            y, mean, r = torch.native_batch_norm(x, w, b, None, None, True, 0.0, EPS)
        else:  # torch's kernel for channels last loses two digits: it adds up one number after the other
            mean = x.mean(_all_but_channels(x))
            off = x - _of_channels(mean, x)
            r = (off.square().mean(_all_but_channels(x)) + EPS).rsqrt()
            y = off.mul_(_of_channels(w * r, x)).add_(_of_channels(b, x))
        ctx.save_for_backward(x, w, mean, r)
        return y

    @staticmethod
    def backward(ctx: BackwardCFunction, *slopes: Tensor) -> tuple[Tensor, ...]:
        own: tuple[Tensor, ...] = _Slopes.apply(*slopes, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return own


class _Slopes(torch.autograd.Function):
    """The derivative of a loss in x, w and b, from that in y, g: w P(g), sum(g x') and sum(g).

    P(v) = r (v - mean(v) - x' mean(v x')) is the derivative of x', a symmetric map. torch's own second derivative is
    made of some 25 operations on whole tensors; here are P once more and a few.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        slopes: tuple[Tensor, ...] = _backward(g, x, w, None, None, mean, r, True, EPS, [True, True, True])
        ctx.save_for_backward(g, x, w, mean, r, *slopes[1:])
        return slopes

    @staticmethod
    def backward(ctx: BackwardCFunction, u: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor | None, ...]:
        """Return the derivatives of sum(u w P(g)) + s sum(g x') + t sum(g) in g, x and w.

        In g: w P(u) + s x' + t. In w: sum(u P(g)) = r (sum(u g) - sum(u) mean(g) - sum(u x') mean(g x')) = d. In x, as
        r has the derivative -r^2 x' / n, and sum(v x') has P(v): (s - w r mean(u x')) P(g) - w r mean(g x') P(u)
        - w d r x' / n.
        """
        if torch.is_grad_enabled():  # once_differentiable would let a gradient in x alone pass, and be wrong
            raise NotImplementedError("batch norm has no third derivative here: take fused = False")
        g, x, w, mean, r, g_x, g_sum = tuple[Tensor, ...](ctx.saved_tensors)
        n = x.numel() // x.shape[1]
        p_u, u_x, u_sum = _backward(u, x, None, None, None, mean, r, True, EPS, [True, True, True])
        in_w = r * ((u * g).sum(_all_but_channels(x)) - (u_sum * g_sum + u_x * g_x) / n)

        of_g = r * (s - w * r * u_x / n)  # P(g) = r (g - mean(g) - x' mean(g x')) is written out below
        of_x = -r * (of_g * g_x + w * in_w * r) / n
        sizes = [w, t - s * r * mean, s * r, of_x, of_x * mean + of_g * g_sum / n, of_g, -w * r * g_x / n]
        w, in_g_0, in_g_x, of_x, in_x_0, of_g, in_x_p = (_of_channels(each, x) for each in sizes)
        in_g = (p_u * w).add_(in_g_0).addcmul_(x, in_g_x)
        in_x = (x * of_x).sub_(in_x_0).addcmul_(g, of_g).addcmul_(p_u, in_x_p)
        return in_g, in_x, in_w, None, None


class BatchNorm(nn.Module):
    """Batch norm over every axis but the second, by the statistics of the batch alone; eps = 1e-5.

    Args:
        width: Of the second axis.
        fused: By torch's own kernel, which is faster, with two derivatives, and cannot be mapped by ``vmap``. (torch's
            own second derivative can, and is wrong by some per cent then, without a word: torch 2.13.)
    """

    def __init__(self, width: int, fused: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.fused = fused

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (n, width) or (n, width, height, width of the image)."""
        if self.fused:
            normal: Tensor = _Fused.apply(values, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return normal
        axes = _all_but_channels(values)
        off = values - values.mean(axes, keepdim=True)
        scale, shift = (_of_channels(each, values) for each in (self.weight, self.bias))
        return off * (off.square().mean(axes, keepdim=True) + EPS).rsqrt() * scale + shift
