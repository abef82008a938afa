"""How much memory is left, by the system's own files."""

import torch

from statprune.system.memory import available_host, control_group_room, peak_above

VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
VERSION_2 = ("memory.max", "memory.current")


def group(folder, names, limit, used, cached=0, more=""):
    """Write a control group's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n{more}")


def test_the_limit_of_a_slurm_job_counts(tmp_path):
    group(tmp_path / "slurm" / "job_7", VERSION_2, 1000, 400, 50)
    group(tmp_path / "slurm", VERSION_2, "max", 900)
    assert control_group_room("0::/slurm/job_7/step_0\n", tmp_path) == [650]


def test_the_limit_of_a_container_in_version_1_counts(tmp_path):
    below = "total_inactive_file 300\n"  # the cache of groups below, too
    group(tmp_path / "memory" / "docker" / "a", VERSION_1, 3000, 1000, 1, below)
    group(tmp_path / "slurm", VERSION_2, "max", 900)
    assert control_group_room("4:cpu,memory:/docker/a\n3:cpuset:/slurm\n0::/\n", tmp_path) == [2300]


def test_inside_a_container_its_own_group_is_the_root(tmp_path):
    group(tmp_path, VERSION_2, 500, 100)
    assert control_group_room("0::/\n", tmp_path) == [400]


def test_a_group_outside_of_what_a_container_is_shown_has_no_limit(tmp_path):
    assert control_group_room("0::/../../outside\n", tmp_path / "none") == []


def test_the_machine_has_memory_left():
    assert available_host() > 2**20


def test_the_peak_above_is_what_the_work_held():
    above = peak_above(torch.device("cpu"), lambda: torch.ones(2**24))  # 64 MiB
    assert above is None or 60 * 2**20 <= above <= 100 * 2**20
