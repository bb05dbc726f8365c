"""``python -m maml_rl`` is ``maml-rl``."""

from maml_rl.cli.main import main

main()
