"""Workers on one machine that share out its GPUs."""

import subprocess
import sys

import pytest

# a worker on a machine with two GPUs, without PyTorch's slow import; it ends with its input
WORKER = """
import sys
from types import ModuleType, SimpleNamespace

torch = sys.modules["torch"] = ModuleType("torch")
torch.cuda = SimpleNamespace(device_count=lambda: 2, set_device=lambda number: print(number, flush=True))

from statprune.system.gpu_slots import take_gpu

take_gpu()
take_gpu()
sys.stdin.read()
"""


@pytest.fixture
def start_worker():
    """A function that starts a worker and returns it with the number of the GPU that it has taken."""
    workers = []

    def start():
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        workers.append(worker)
        return worker, int(worker.stdout.readline())

    yield start
    for worker in workers:
        worker.communicate(timeout=60)


def test_workers_on_one_machine_take_different_gpus_and_share_them_once_all_are_taken(start_worker):
    assert [start_worker()[1] for _ in range(3)] == [0, 1, 0]


def test_a_worker_takes_only_one_gpu(start_worker):
    worker, _ = start_worker()
    others = worker.communicate(timeout=60)[0]
    assert others == "" and worker.returncode == 0


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_gpu_of_a_worker_that_has_ended_is_taken_first(gpu, start_worker):
    workers = [start_worker()[0] for _ in range(3)]
    workers[gpu].communicate(timeout=60)
    assert start_worker()[1] == gpu
