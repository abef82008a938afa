"""What a disk refuses ends in one sentence."""

import errno

import pytest

from statprune.system.disk import disk_problem

WAY_OUT = "make room there, or give a hydra.run.dir elsewhere"


FULL = "[Errno 28] No space left on device: 'x/a'"
RUST = "I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "x/a"), f"x/a can't be written to ({FULL}); {WAY_OUT}"),
        (RuntimeError(RUST), f"run can't be written to ({RUST}); {WAY_OUT}"),
        (ValueError("no digits"), None),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
    ],
)
def test_what_a_disk_refuses_is_a_sentence(error, sentence):
    assert disk_problem(error, "run") == sentence


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG])
def test_each_refusal_has_its_own_way_out(number):
    problem = disk_problem(OSError(number, "no"), "run")
    assert problem is not None and problem.startswith("run can't be written to (")
