"""GPUs that warp can use, and what it says of others."""

import torch
import warp as wp

wp.config.log_level = wp.LOG_WARNING
wp.init()

LEAST_ARCHITECTURE = 75
"""Compute capability, times ten, from which on warp's compiler makes kernels."""


def lacks(device: torch.device) -> str:
    """Return what warp misses to simulate on a device; empty where nothing is."""
    if device.type != "cuda":
        return ""
    found = wp.get_cuda_devices()
    if not found:
        return (
            "warp finds no CUDA device: its wheel needs an NVIDIA driver of the 580 series or newer; for an older one "
            "take warp's +cu12 wheel from its releases"
        )
    own = found[torch.cuda.current_device() if device.index is None else device.index]
    if own.arch < LEAST_ARCHITECTURE:
        return f"warp makes no kernels for {own.name}, of compute capability {own.arch / 10}: it needs 7.5 or more"
    return ""
