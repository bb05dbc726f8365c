"""Meta-reinforcement learning: sample, adapt, step."""
