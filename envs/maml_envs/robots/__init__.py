"""Task distributions of MuJoCo's robots."""
