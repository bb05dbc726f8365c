"""MAML itself: the inner loop, the task axis, the optimisers of the outer step. No reinforcement learning."""
