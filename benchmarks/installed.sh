#!/usr/bin/env bash
# Installs a wheel or an sdist for a Python, into an empty environment outside the repository, and trains, evaluates and
# draws with it: installed.sh PYTHON FILE
set -euo pipefail
python=$1
file=$(realpath "$2")
constraints=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../constraints.txt")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
"$python" -m venv venv
venv/bin/python -m pip install -q -c "$constraints" "$file"
venv/bin/maml-rl train navigation --iterations 2 --out run
venv/bin/maml-rl evaluate run --tasks 4 --steps 1
venv/bin/maml-rl plot run
for picture in learning_curve adaptation_curve paths; do test -s "run/figures/$picture.png"; done
venv/bin/python -c 'import platform, torch; print("works:", platform.python_version(), "torch", torch.__version__)'
