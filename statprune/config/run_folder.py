"""Names of files and folders as they are typed: the key ``name``, which stays below outputs/, and others."""

import os
import re
from pathlib import Path

OUTPUTS = Path("outputs")
LONGEST_PART, LONGEST_PATH = 255, 4000  # bytes that file systems take; a path has files' names after it


def name_problem(name: str) -> str | None:
    """What is wrong with the key ``name``, the folder below outputs/, in a sentence, or None.

    Args:
        name: as it was given.
    """
    advice = "give a plain name, such as name=first or name=first/half"
    if not name.strip():
        return f"name={name} is empty; {advice}"
    if any(not sign.isprintable() for sign in name):
        return f"name={name!r} has signs that can't be printed; {advice}"
    if name.startswith(("/", "~")) or "\\" in name or re.match(r"[A-Za-z]:", name):
        return f"name={name} would lead out of outputs/; {advice}, or hydra.run.dir=FOLDER for another place"
    parts = name.split("/")
    if ".." in parts:
        return f"name={name} would lead out of outputs/; {advice}, or hydra.run.dir=FOLDER for another place"
    if any(part.startswith(".") or part.endswith((".", " ")) or part != part.strip() or not part for part in parts):
        return f"name={name} has a part that is empty, begins with a dot, or ends with a dot or a space; {advice}"
    return _length_problem("name", name)


def link_problem(name: str) -> str | None:
    """A sentence where a link below outputs/ leads out of it, so that runs would be written elsewhere.

    Args:
        name: the key, which is a plain name.
    """
    try:
        place = (OUTPUTS / name).resolve()
        if place.is_relative_to(OUTPUTS.resolve()):
            return None
    except (OSError, RuntimeError) as error:  # a link to itself
        return f"name={name} can't be followed in outputs/ ({error}); give another name"
    return (
        f"name={name} is a link that leads out of outputs/, to {place}; give another name, or name the folder: "
        f"hydra.run.dir={place}/RUN"
    )


def folder_name_problem(key: str, value: object) -> str | None:
    """What is wrong with a folder of Hydra's, in a sentence, or None.

    Args:
        key: full name.
        value: of it, resolved.
    """
    if value is None or not str(value).strip():
        return f"{key} is {'null' if value is None else 'empty'}; name a folder, or leave it out"
    if "\0" in str(value):
        return f"{key}={value!r} has a sign that no file system takes; name another folder"
    return _length_problem(key, str(value))


def path_problem(key: str, path: str) -> str | None:
    """A sentence where nobody could look whether there is such a file or folder, or None.

    Args:
        key: full name.
        path: of a file or folder, or another name.
    """
    if "\0" in path:
        return f"{key}={path!r} has a sign that no file system takes; name another place"
    try:
        Path(path).expanduser().exists()
    except (OSError, RuntimeError) as error:  # too long, forbidden, or the home of a user that there is not
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{key}={path} can't be looked at ({reason}); name another place"
    return None


def _length_problem(key: str, path: str) -> str | None:
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > LONGEST_PART or len(os.fsencode(path)) > LONGEST_PATH:
        return (
            f"{key}={path} is too long for a file system, which takes {LONGEST_PART} bytes a name; give a shorter one"
        )
    return None
