"""Small tensors on one thread: faster than two threads that wait for each other. The same precision on every CPU."""

import os
import subprocess
import sys

import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("LOSSBOX_CPU_PRECISION", "32-true")  # what `precision: auto` becomes; tests/training/test_precision.py takes it away


def _run_ranks(script, size, *words, timeout=120):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(script), str(rank), *map(str, words)] for rank in range(size)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, errors


@pytest.fixture(scope="session")
def run_processes():
    """``run_processes(script, size, *words)`` runs the script once a rank, side by side, with its rank and the words, and waits for all."""
    return _run_ranks
