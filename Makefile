# Every target sets up .venv by itself; nothing happens where that is done already.

PYTHON ?= python3
# On the command line ROS_DISTRO chooses the wheels, for a machine without ROS; in the environment
# it belongs to the ROS that is sourced.
ifeq ($(origin ROS_DISTRO),command line)
export ROS_WHEELS := $(ROS_DISTRO)
endif
VENV := .venv$(addprefix -,$(filter-out jazzy,$(ROS_WHEELS)))/bin
# Most tests wait for messages more than they compute; a file's tests stay together.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help setup model gpu-kit demo test test-ros test-model check-install lint bench evaluate clean

help:
	@echo 'make demo           make a sample bag, map it with the real node, results in out/demo'
	@echo 'make demo BAG=path  the same with your own bag; more options in DEMO_ARGS'
	@echo 'make test           run all tests; options for pytest in PYTEST_ARGS'
	@echo 'make test ROS_DISTRO=kilted  the same on the wheels of another ROS 2, in .venv-kilted'
	@echo 'make test-ros ROS_SRC=folder  build the original packages from their sources, test on them'
	@echo 'make model          install MapAnything into .venv; MAPANYTHING_SRC=folder takes its source there'
	@echo 'make test-model     run the tests of the backend against the real MapAnything, tiny'
	@echo 'make gpu-kit        what python -m benchmarks.gpu needs on a GPU machine without network, of GPU_PYTHON (3.12)'
	@echo 'make check-install  resolve the recipes of docs/install.md for each robot, installing nothing'
	@echo 'make lint           ruff, mypy, package.xml'
	@echo 'make bench          measure, results in out/bench'
	@echo 'make evaluate       measure path, map and scale under known faults, results in out/evaluate'
	@echo 'make setup          make .venv and nothing else'
	@echo 'make clean          remove .venv and everything that was built or written'

setup:
	@$(PYTHON) pip_ros/bootstrap.py

model:
	@MAPANYTHING_SRC='$(MAPANYTHING_SRC)' $(PYTHON) pip_ros/bootstrap.py model

gpu-kit:
	@MAPANYTHING_SRC='$(MAPANYTHING_SRC)' GPU_PYTHON='$(GPU_PYTHON)' $(PYTHON) pip_ros/bootstrap.py gpu-kit

demo: setup
	@$(VENV)/demo --output out/demo $(if $(BAG),--bag $(BAG)) $(DEMO_ARGS)

test: setup
	@$(VENV)/python -m pytest test pip_ros/test $(PARALLEL) $(PYTEST_ARGS)

test-ros: setup
	@$(VENV)/python pip_ros/originals.py '$(ROS_SRC)' $(PYTEST_ARGS)

test-model: model
	@$(VENV)/python -m pytest test -m 'model or real_model' --real-model $(PYTEST_ARGS)

check-install: setup
	@$(VENV)/python pip_ros/check_install.py

lint: setup
	@$(VENV)/ruff check
	@$(VENV)/python -m mypy
	@$(VENV)/python -c 'from catkin_pkg.package import parse_package; \
	  parse_package("package.xml").validate(); print("package.xml: valid")'

bench: setup
	@$(VENV)/python -m benchmarks

evaluate: setup
	@$(VENV)/python -m benchmarks.evaluate $(EVALUATE_ARGS)

clean:
	rm -rf .venv .venv-* .gpu_kit build install log out *.egg-info pip_ros/build pip_ros/src/*.egg-info \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache
