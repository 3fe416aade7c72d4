# edgetrt: one target for each stage. `make help` lists them.
RUN ?= runs/demo
IMAGE_DIR ?= data/elpv
PICTURES ?=
FLAGS ?=
RATIOS ?=
BUNDLE ?= $(RUN).edgetrt
DEVICE ?=
INVENTORY ?= devices.toml
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BINDINGS := $(VENV)/bindings/.ready
EDGETRT := $(VENV)/bin/edgetrt

.PHONY: help setup demo test test-gpu run retrain export quantize engines compare classify debug tensorboard benchmark peers matrix device bundle deploy rollback fleet serve doctor targets lint clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## set up .venv from the lock file

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit("edgetrt needs Python 3.10 to 3.13, for which there is TensorFlow; this is %d.%d: make PYTHON=python3.13 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(BINDINGS): tests/bindings.lock $(READY)
	rm -rf $(@D)
	$(VENV)/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: --dest $(@D) -r tests/bindings.lock
	touch $@

demo: $(READY) ## the whole pipeline on real pictures, into runs/demo
	$(EDGETRT) dataset elpv --out data/elpv
	$(EDGETRT) run --image-dir data/elpv --run runs/demo --testing-percentage 25

test: $(READY) $(BINDINGS) ## ruff, mypy and the tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-gpu: $(READY) ## the tests that need TensorRT and an NVIDIA GPU; fails without
	$(VENV)/bin/python -m pytest tests/gpu

run: $(READY) ## every stage (RUN=..., IMAGE_DIR=..., FLAGS=...)
	$(EDGETRT) run --image-dir '$(IMAGE_DIR)' --run '$(RUN)' $(FLAGS)
retrain: $(READY) ## 1. retrain the last layer
	$(EDGETRT) retrain --image-dir '$(IMAGE_DIR)' --run '$(RUN)' $(FLAGS)
export: $(READY) ## 2. frozen graph to ONNX
	$(EDGETRT) export --run '$(RUN)' $(FLAGS)
quantize: $(READY) ## 3. FP16 and INT8 graphs
	$(EDGETRT) quantize --run '$(RUN)' $(FLAGS)
engines: $(READY) ## 4. build the engines
	$(EDGETRT) build --run '$(RUN)' $(FLAGS)
compare: $(READY) ## 5. accuracy and latency, and the report
	$(EDGETRT) compare --run '$(RUN)' $(FLAGS)
classify: $(READY) ## classes of PICTURES="a.png b.jpg"
	$(EDGETRT) classify --run '$(RUN)' $(FLAGS) $(PICTURES)
debug: $(READY) ## the layers that move INT8 away from FP32 (FLAGS="--precision fp16")
	$(EDGETRT) debug --run '$(RUN)' $(FLAGS)
tensorboard: $(READY) ## watch the training at http://localhost:6006
	$(VENV)/bin/tensorboard --logdir '$(RUN)/logs'
benchmark: $(READY) ## the speed and quality goals, measured side by side (RATIOS="training ...")
	$(EDGETRT) dataset elpv --out data/elpv
	$(VENV)/bin/python -m benchmarks.ratios $(RATIOS)
peers: $(READY) ## what people would use instead, side by side (RUN=..., FLAGS=--quick)
	$(VENV)/bin/python -m benchmarks.peers --run '$(RUN)' --pictures '$(IMAGE_DIR)' $(FLAGS)
matrix: $(READY) ## every backbone built by TensorRT-RTX for every RTX GPU: seconds and MB
	$(EDGETRT) dataset elpv --out data/elpv
	$(VENV)/bin/python -m benchmarks.rtx_matrix
device: $(READY) ## the device program, edgetrt-device.pyz
	$(EDGETRT) device-package $(FLAGS)
bundle: $(READY) ## what a device needs of RUN, signed, into BUNDLE
	test -e "$${XDG_CONFIG_HOME:-$$HOME/.config}/edgetrt/signing.pem" || $(EDGETRT) keygen
	$(EDGETRT) bundle --run '$(RUN)' --out '$(BUNDLE)' $(FLAGS)
deploy: $(READY) ## BUNDLE to DEVICE=user@host, proven there
	$(EDGETRT) deploy '$(BUNDLE)' --device '$(DEVICE)' $(FLAGS)
rollback: $(READY) ## DEVICE=user@host back to the release before
	$(EDGETRT) deploy --rollback --device '$(DEVICE)' $(FLAGS)
fleet: $(READY) ## BUNDLE to the devices of INVENTORY (FLAGS="--canary 1 --batch 25%")
	$(EDGETRT) deploy '$(BUNDLE)' --inventory '$(INVENTORY)' $(FLAGS)
serve: $(READY) ## BUNDLE over HTTP on this machine
	$(EDGETRT) serve --bundle '$(BUNDLE)' $(FLAGS)
doctor: $(READY) ## what this machine can build and run
	$(EDGETRT) doctor
targets: $(READY) ## what each board and GPU can do (FLAGS=tx2)
	$(EDGETRT) targets $(FLAGS)
lint: $(READY) ## ruff and mypy only
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy
clean: ## remove the environment; runs and data stay
	rm -rf $(VENV)
