# Everything runs in .venv, which `make setup` makes; PYTHON=... uses another environment.

VENV := .venv
STAMP := $(VENV)/.installed
ifeq ($(origin PYTHON), undefined)
PYTHON := $(VENV)/bin/python
READY := $(STAMP)
endif

.PHONY: setup demo benchmarks test test-slow lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: $(READY)
	$(PYTHON) examples/demo.py

NETS := vgg16 resnet50 googlenet squeezenet1_0 densenet121 shufflenet_v2_x1_0 mobilenet_v2

benchmarks: $(READY)
	$(PYTHON) -m tilth.cli.main bench $(NETS) --against onnxruntime,openvino,torch \
		--batch 1,8 --threads 2 --save benchmarks/results

test: $(READY)
	$(PYTHON) -m pytest -n auto -m 'not slow and not cuda and not peer'

test-slow: $(READY)
	$(PYTHON) -m pytest -n auto -m slow

lint: $(READY)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
	$(PYTHON) tests/test_rooms.py

format: $(READY)
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

clean:
	rm -rf build dist out .pytest_cache .ruff_cache .hypothesis *.egg-info
