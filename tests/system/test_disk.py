"""What a disk refuses ends in one sentence."""

import errno

import pytest

from statprune.system.disk import disk_problem, readable

WAY_OUT = "make room there, or give a hydra.run.dir elsewhere"


FULL = "[Errno 28] No space left on device: 'x/a'"
RUST = "I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "x/a"), f"x/a can't be written to ({FULL}); {WAY_OUT}"),
        (RuntimeError(RUST), f"run can't be written to ({RUST}); {WAY_OUT}"),
        (ValueError("no digits"), None),
    ],
)
def test_what_a_disk_refuses_is_a_sentence(error, sentence):
    assert disk_problem(error, "run") == sentence


def test_a_folder_that_was_removed_is_a_sentence(tmp_path):
    gone = tmp_path / "gone"
    missing = FileNotFoundError(errno.ENOENT, "No such file", str(gone / "file"))
    problem = f"{gone} was removed while it was being written; start the same command again"
    assert disk_problem(missing, str(gone)) == problem and disk_problem(missing, str(tmp_path)) is None


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST, errno.EISDIR])
def test_files_and_folders_in_each_others_place_are_sentences(number):
    problem = disk_problem(OSError(number, "no", "run/.hydra"), "run")
    assert problem is not None and "needed: move it away" in problem
    assert disk_problem(OSError(number, "no", "elsewhere/model"), "run") is None


def test_sizes_are_readable():
    assert [readable(size) for size in (1000, 2**20, 3 * 2**30)] == ["1.0 KiB", "1.00 MiB", "3.00 GiB"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG])
def test_each_refusal_has_its_own_way_out(number):
    problem = disk_problem(OSError(number, "no"), "run")
    assert problem is not None and problem.startswith("run can't be written to (")
