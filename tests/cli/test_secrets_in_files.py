"""No file of a run has a secret of its environment in it: records, logs, Hydra's files, W&B's, a saved model's card."""

from pathlib import Path

import pytest

from tests.helpers.command import statprune

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_s3cretOfTheHub0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_otherS3cretOfTheHub98765",
    "MY_SECRET": "s3cret-of-mine-4711",
}
QUICK = ["calibration.samples=2", "calibration.seq_len=16", "evaluation.max_windows=1", "evaluation.seq_len=16"]


def files_with_secrets(folder: Path) -> list[str]:
    """Every file below the folder that holds one of the secrets."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    hidden = [value.encode() for value in SECRETS.values()]
    return [str(path) for path in files if any(value in path.read_bytes() for value in hidden)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["tracking=offline", "save_model=true"], 0),
        (["-m", "tracking=offline", "seed=0,1"], 0),
        (["tracking=offline", "model.exclude=['.']"], 1),  # nothing is left to prune
    ],
    ids=["run", "sweep", "failing run"],
)
def test_no_file_of_a_run_holds_a_secret(arguments, status, tmp_path, tiny_folder):
    done = statprune(f"model.path={tiny_folder}", *QUICK, *arguments, cwd=tmp_path, **SECRETS)
    assert done.returncode == status, done.stderr
    assert files_with_secrets(tmp_path) == []
    assert not any(value in done.stdout + done.stderr for value in SECRETS.values())


@pytest.mark.parametrize("override", ["tracking.notes=${oc.env:MY_SECRET}", "name=s3cret-of-mine-4711"])
def test_a_command_with_a_secret_makes_nothing(override, tmp_path):
    done = statprune(override, cwd=tmp_path, **SECRETS)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert SECRETS["MY_SECRET"] not in done.stdout + done.stderr
    assert not any(tmp_path.iterdir())
