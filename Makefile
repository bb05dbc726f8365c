# Every target makes .venv first if it is missing or older than what it was installed from.
#
#   PYTHON    the Python that makes .venv, 3.11 or newer         make test PYTHON=python3.12
#   WORKERS   processes that run the tests                       make test WORKERS=8
#   ARGS      more arguments for pytest                          make test ARGS='-k adapt --cov'
#   PYTHONS   the Pythons that `make pythons` tries              make pythons PYTHONS=~/3.13/bin/python

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
PYTHONS ?= python3.11 python3.12 python3.13

BIN = .venv/bin
DEMO = runs/demo

.DEFAULT_GOAL = help
.PHONY: help demo test full pythons lint docs linkcheck bench record clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: .venv/installed  ## train on navigation, adapt to new tasks, report: see runs/demo
	$(BIN)/maml-rl train navigation --out $(DEMO) --resume
	$(BIN)/maml-rl evaluate $(DEMO) --tasks 40 --steps 3
	$(BIN)/maml-rl plot $(DEMO)
	$(BIN)/maml-rl report $(DEMO)

# One thread for each worker: the workers share the cores.
test: lint  ## format, lint, types and tests: what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

full: test  ## and what is longer or needs more: run before a release
	$(BIN)/python -m pip install -q --no-deps --target build/triton triton
	PYTHONPATH=$(CURDIR)/build/triton OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/envs/test_drawing.py
	$(BIN)/python -m pip install -q --target build/loggers trackio pandas "$$(grep ^numpy= constraints.txt)"
	PYTHONPATH=$(CURDIR)/build/loggers OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/runs/test_trackio.py \
		tests/runs/test_csv.py tests/docs/test_loggers_doc.py
	$(PYTHON) -m venv build/simulators
	build/simulators/bin/python -m pip install -q mujoco==3.3.7 dm_control==1.0.34 gymnasium-robotics==1.4.2 \
		'shimmy[dm-control]==2.0.1' gymnasium==1.4.0
	SIMULATORS=$(CURDIR)/build/simulators OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/docs/test_simulators.py
	$(BIN)/python -m pip install -q -c constraints.txt --target build/notebook nbclient ipykernel
	NOTEBOOK=0 PYTHONPATH=$(CURDIR)/build/notebook $(BIN)/python -m pytest tests/docs/test_notebook.py
	$(MAKE) pythons

# An installation as users have it: from the wheel, and on this Python from the sdist too, used outside the repository.
pythons: .venv/installed  ## install the wheel and the sdist on each of PYTHONS that is here, and train there
	$(BIN)/python -m build -q --outdir build/dist .
	for python in $(PYTHONS); do \
		$$python -c '' 2>/dev/null || { echo "$$python is not here: left out"; continue; }; \
		benchmarks/installed.sh $$python build/dist/*.whl || exit 1; \
	done
	benchmarks/installed.sh $(PYTHON) build/dist/*.tar.gz

lint: .venv/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# From the beginning each time: what is kept of an earlier build would hide its warnings.
SITE = $(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet -c docs

docs: .venv/installed  ## build the site: build/site/index.html
	PYTHONPATH=tests/helpers $(BIN)/python docs/generate.py
	$(SITE) . build/site

linkcheck: .venv/installed  ## look at every link of the documents that leads elsewhere
	$(SITE) -b linkcheck . build/linkcheck

bench: .venv/installed  ## time rollouts, the outer step and a whole iteration
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/outer_step.py
	$(BIN)/python benchmarks/iteration.py

record: .venv/installed  ## how soon half-cheetah-dir reaches the published return: five seeds, 15 minutes
	for seed in 21 22 23 24 25; do \
		$(BIN)/maml-rl train record_half_cheetah_dir --seed $$seed --threads 2 --iterations 94 --resume \
			--out runs/record_half_cheetah_dir/s$$seed || exit 1; \
	done
	$(BIN)/python experiments/make_readme.py --record $(foreach s,21 22 23 24 25,runs/record_half_cheetah_dir/s$(s)) 364 728

clean:  ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv build dist htmlcov .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache MUJOCO_LOG.TXT
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "maml_rl needs Python 3.11 or newer, and '$(PYTHON)' is not that: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
