"""Checks of the mathematics: finite differences, and exact meta-gradients of small decision processes."""
