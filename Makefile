# `make help` lists the targets. Each of them first installs what it needs into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH=cpu installs PyTorch without CUDA, TORCH=cuda as PyPI has it. Without TORCH, an installed build stays.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := demo_$(shell date +%Y%m%d_%H%M%S)
DEMO_PART2 := --dataset digits --z_dim 2 --epochs 40 --d_lr 0.05
DEMO_PART3 := --txt_file pydoc --model_type gpt-nano --block_size 64 --train_batch_size 64 --learning_rate 3e-3 \
  --max_steps 300 --val_every_n_steps 100
ARGS ?=
JOBS ?= 2
LOGS ?= part1/VAE_logs

ifneq ($(filter-out cpu cuda,$(TORCH)),)
$(error TORCH=$(TORCH) is no build of PyTorch: give TORCH=cpu or TORCH=cuda)
endif
INSTALLED := $(shell cat $(VENV)/.installed 2>/dev/null)
SWITCH := $(filter-out $(INSTALLED),$(TORCH))

.DEFAULT_GOAL := help
.PHONY: help install demo test soak lint format grade mutants bench train-part1 train-part2 train-part3 reproduce report tensorboard clean
.PHONY: switch

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# PyTorch's index need not have the versions in constraints.txt of what PyTorch depends on: the rest comes from PyPI.
$(VENV)/.installed: requirements.txt constraints.txt $(if $(SWITCH),switch)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "installing into $(VENV); the first time this takes some minutes"
	@$(PYTHON) -m venv $(if $(SWITCH),$(if $(wildcard $@),--clear)) $(VENV)
ifeq ($(or $(TORCH),$(INSTALLED)),cpu)
	@$(PIP) --no-deps --index-url $(TORCH_INDEX) torch torchvision
endif
	@$(PIP) -r requirements.txt
	@echo $(or $(TORCH),$(INSTALLED),cuda) > $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	@$(PIP) -r tests/requirements.txt
	@touch $@

install: $(VENV)/.installed ## install what training needs; without a GPU: TORCH=cpu

demo: $(VENV)/.installed ## train all parts in minutes, without downloading data
	$(BIN)/python part1/train.py --dataset digits --epochs 60 --log_dir part1/VAE_logs/$(DEMO)
	$(BIN)/python part1/train.py --dataset digits --epochs 60 --z_dim 2 --log_dir part1/VAE_logs/$(DEMO)
	$(BIN)/python part1/generate.py --checkpoint part1/VAE_logs/$(DEMO)/lightning_logs/version_0
	$(BIN)/python part2/train.py $(DEMO_PART2) --log_dir part2/AAE_logs/$(DEMO)
	$(BIN)/python part2/generate.py --checkpoint part2/AAE_logs/$(DEMO)/version_0
	$(BIN)/python part3/train.py $(DEMO_PART3) --log_dir part3/logs/$(DEMO)
	$(BIN)/python part3/generate.py --checkpoint part3/logs/$(DEMO)/lightning_logs/version_0 --prompt "The " \
	  --num_samples 2 --n_steps 300
	@echo
	@echo "Pictures of this demo (those of single epochs are in the same folders):"
	@find part1/VAE_logs/$(DEMO) part2/AAE_logs/$(DEMO) part3/logs/$(DEMO) -name '*.png' ! -name sprite.png \
	  ! -name 'epoch_*' ! -path '*/results/*' | sort | sed 's/^/  /'
	@echo "Curves, codes and texts in TensorBoard, at http://localhost:6006:"
	@echo "  make tensorboard LOGS=part1/VAE_logs/$(DEMO)"
	@echo "  make tensorboard LOGS=part2/AAE_logs/$(DEMO)"
	@echo "  make tensorboard LOGS=part3/logs/$(DEMO)"

test: $(VENV)/.installed-tests ## run the tests in JOBS=2 processes; DATA_DIR=DIR adds those that need MNIST
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-tests ## check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.installed-tests ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

soak: $(VENV)/.installed-tests ## run the slow tests, which `make test` leaves out
	@$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

grade: $(VENV)/.installed-tests ## grade another solution: make grade SUBMISSION=DIR
	@test -n "$(SUBMISSION)" || { echo "name the folder that holds part1, part2, part3: make grade SUBMISSION=DIR" >&2; exit 2; }
	@$(BIN)/python tests/grade.py "$(SUBMISSION)" $(ARGS)

mutants: $(VENV)/.installed-tests ## plant mistakes in the solution and check that grading finds them
	@$(BIN)/python tests/mutants/run.py $(ARGS)

bench: $(VENV)/.installed-tests ## measure the speed of all parts: half an hour on two cores
	@$(PIP) --no-deps -r tests/benchmarks/requirements.txt
	$(BIN)/python tests/benchmarks/bench_part1.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part2.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part3_training.py $(ARGS)
	$(BIN)/python tests/benchmarks/bench_part3_generation.py $(ARGS)

train-part1: $(VENV)/.installed ## train the VAE on MNIST; flags: ARGS="--epochs 2"
	$(BIN)/python part1/train.py $(ARGS)

train-part2: $(VENV)/.installed ## train the adversarial autoencoder on MNIST
	$(BIN)/python part2/train.py $(ARGS)

train-part3: $(VENV)/.installed ## train a GPT on Shakespeare; flags: ARGS="--max_steps 1000"
	$(BIN)/python part3/train.py $(ARGS)

reproduce: $(VENV)/.installed ## run the report's trainings that report/results lacks; ARGS='--force RUN' repeats one
	$(BIN)/python report/reproduce.py $(ARGS)

report: $(VENV)/.installed-tests ## compile report/report.pdf from report/results
	$(BIN)/python report/figures.py
	$(BIN)/python -c "import typst; typst.compile('report/report.typ', output='report/report.pdf')"
	@echo report/report.pdf

tensorboard: $(VENV)/.installed ## show the runs in LOGS=part1/VAE_logs at http://localhost:6006
	$(BIN)/tensorboard --logdir $(LOGS)

clean: ## delete .venv and caches; keep runs and data
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
