"""``python -m maml_rl`` is ``maml-rl``."""

from maml_rl.cli import main

main()
