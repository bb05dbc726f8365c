"""Training runs: their loop, folder, checkpoints, logs and evaluations."""
