"""Adapters: gymnasium's environments as TaskEnv, and a TaskEnv as gymnasium's."""
