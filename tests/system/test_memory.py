"""How much memory is left, by the system's own files."""

from statprune.pruning.budget import available_host, control_group_room


def group(folder, names, limit, used, cached=0, more=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n{more}")


def test_the_limits_of_a_container_and_of_a_slurm_job_count(tmp_path):
    new, old = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "slurm" / "job_7", new, 1000, 400, 50)
    group(tmp_path / "slurm", new, "max", 900)
    below = "total_inactive_file 300\n"  # the cache of groups below, too
    group(tmp_path / "memory" / "docker" / "a", old, 3000, 1000, 1, below)
    assert control_group_room("0::/slurm/job_7/step_0\n", tmp_path) == [650]
    assert control_group_room("4:cpu,memory:/docker/a\n3:cpuset:/slurm\n0::/\n", tmp_path) == [2300]
    group(tmp_path, new, 500, 100)  # inside a container, its own group is the root
    assert control_group_room("0::/\n", tmp_path) == [400]
    assert control_group_room("0::/../../outside\n", tmp_path / "none") == []


def test_the_machine_has_memory_left():
    assert available_host() > 2**20
