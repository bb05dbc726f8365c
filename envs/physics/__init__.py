"""Batched steppers: one MuJoCo model, many worlds."""
