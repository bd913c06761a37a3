# `make help` lists the targets. Each of them installs what it needs into .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := demo_$(shell date +%Y%m%d_%H%M%S)
DEMO_PART2 := --dataset digits --z_dim 2 --epochs 40 --d_lr 0.05
DEMO_PART3 := --txt_file pydoc --model_type gpt-nano --block_size 64 --train_batch_size 64 --learning_rate 3e-3 \
  --max_steps 300 --val_every_n_steps 100
ARGS ?=
JOBS ?= 2
LOGS ?= part1/VAE_logs

.DEFAULT_GOAL := help
.PHONY: help demo test lint format grade mutants bench train-part1 train-part2 train-part3 reproduce report tensorboard clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "installing into $(VENV); the first time this takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	@$(PIP) -r tests/requirements.txt
	@touch $@

demo: $(VENV)/.installed ## train within minutes, on data that need no download
	$(BIN)/python part1/train.py --dataset digits --epochs 60 --log_dir part1/VAE_logs/$(DEMO)
	$(BIN)/python part1/train.py --dataset digits --epochs 60 --z_dim 2 --log_dir part1/VAE_logs/$(DEMO)
	$(BIN)/python part1/generate.py --checkpoint part1/VAE_logs/$(DEMO)/lightning_logs/version_0
	$(BIN)/python part2/train.py $(DEMO_PART2) --log_dir part2/AAE_logs/$(DEMO)
	$(BIN)/python part2/generate.py --checkpoint part2/AAE_logs/$(DEMO)/version_0
	$(BIN)/python part3/train.py $(DEMO_PART3) --log_dir part3/logs/$(DEMO)
	$(BIN)/python part3/generate.py --checkpoint part3/logs/$(DEMO)/lightning_logs/version_0 --prompt "The " \
	  --num_samples 2 --n_steps 300
	@echo
	@echo "Pictures of this demo; those of single epochs lie beside them:"
	@find part1/VAE_logs/$(DEMO) part2/AAE_logs/$(DEMO) part3/logs/$(DEMO) -name '*.png' ! -name sprite.png \
	  ! -name 'epoch_*' ! -path '*/results/*' | sort | sed 's/^/  /'
	@echo "Curves and codes: make tensorboard LOGS=part1/VAE_logs/$(DEMO), then open http://localhost:6006"
	@echo "and of part 2:    make tensorboard LOGS=part2/AAE_logs/$(DEMO)"
	@echo "Curves and texts: make tensorboard LOGS=part3/logs/$(DEMO)"

test: $(VENV)/.installed-tests ## run the test suite in JOBS=2 processes; DATA_DIR=DIR adds the tests that need MNIST in DIR/MNIST/raw
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-tests ## check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.installed-tests ## bring the code into the format that lint checks
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

grade: $(VENV)/.installed-tests ## give a solution points: make grade SUBMISSION=DIR; ARGS="--html class.html OTHER_DIR" and so on
	@test -n "$(SUBMISSION)" || { echo "name the folder that holds part1, part2, part3: make grade SUBMISSION=DIR" >&2; exit 2; }
	@$(BIN)/python tests/grade.py "$(SUBMISSION)" $(ARGS)

mutants: $(VENV)/.installed-tests ## prove that the grader finds mistakes: which criterion catches which
	@$(BIN)/python tests/mutants/run.py $(ARGS)

bench: $(VENV)/.installed-tests ## measure the speed of all parts beside plain pipelines, on MNIST: half an hour on two cores
	@$(PIP) --no-deps -r tests/benchmarks/requirements.txt
	$(BIN)/python tests/benchmarks/bench_part1.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part2.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part3_training.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part3_generation.py $(ARGS)

train-part1: $(VENV)/.installed ## train the VAE on MNIST; ARGS="--epochs 2" and so on
	$(BIN)/python part1/train.py $(ARGS)

train-part2: $(VENV)/.installed ## train the adversarial autoencoder on MNIST
	$(BIN)/python part2/train.py $(ARGS)

train-part3: $(VENV)/.installed ## train a GPT on Shakespeare; ARGS="--max_steps 1000" and so on
	$(BIN)/python part3/train.py $(ARGS)

reproduce: $(VENV)/.installed ## make the runs of the report that are not there yet, ARGS=--force all (DATA_DIR: where MNIST is)
	$(BIN)/python report/reproduce.py $(ARGS)

report: $(VENV)/.installed-tests ## set report/report.pdf from the results of those runs
	$(BIN)/python report/figures.py
	$(BIN)/python -c "import typst; typst.compile('report/report.typ', output='report/report.pdf')"
	@echo report/report.pdf

tensorboard: $(VENV)/.installed ## show the runs in LOGS (default part1/VAE_logs) at http://localhost:6006
	$(BIN)/tensorboard --logdir $(LOGS)

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
