"""The seed of held-out tasks."""

HELD_OUT_SEED = 20170310
"""Held-out tasks are drawn from this seed, whatever the seed of training."""
