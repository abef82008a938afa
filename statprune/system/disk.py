"""What a disk refuses, as sentences: full, over quota, read-only, forbidden."""

import errno
import os
import re

from statprune.errors import first_line

ADVICE = {
    errno.ENOSPC: "make room there, or give a hydra.run.dir elsewhere",
    errno.EDQUOT: "free some of your quota, or give a hydra.run.dir elsewhere",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or give a hydra.run.dir elsewhere",
    errno.EROFS: "give a hydra.run.dir on a disk that can be written to",
    errno.EACCES: "change its permissions, or give a hydra.run.dir elsewhere",
    errno.EPERM: "change its permissions, or give a hydra.run.dir elsewhere",
    errno.EIO: "the disk fails: give a hydra.run.dir elsewhere",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
OTHER_KIND = {  # only of files that are to be written: a model that is read may have these faults, too
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or give a hydra.run.dir elsewhere",
    errno.EEXIST: "a file stands where a folder is needed: move it away, or give a hydra.run.dir elsewhere",
    errno.EISDIR: "a folder stands where a file is needed: move it away, or give a hydra.run.dir elsewhere",
}
NUMBER = re.compile(r"(?:os error |errno )(\d+)", re.IGNORECASE)  # as Rust and Arrow write it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def readable(size: int) -> str:
    """Bytes as people read them: of two sizes on one disk the smaller one must not be zero."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit / 10:
            return f"{size / unit:.2f} {name}"
    return f"{size / 2**10:.1f} KiB"


def disk_problem(error: BaseException, where: str) -> str | None:
    """What a disk refused, in one sentence, or None where the error is of another kind.

    Args:
        error: what was raised, or what raised it.
        where: what was written to, where the error names no file.
    """
    file = getattr(error, "filename2", None) or getattr(error, "filename", None) or where
    number = _number(error)
    advice = ADVICE[number] if number is not None else _of_other_kind(error, str(file), where)
    if advice is not None:
        return f"{file} can't be written to ({first_line(error)}); {advice}"
    if isinstance(error, FileNotFoundError) and not os.path.isdir(where):
        return f"{where} was removed while it was being written; start the same command again"
    return None


def is_disk_error(error: BaseException) -> bool:
    """Whether a disk that is full or can't be written to is the reason of an error."""
    return _number(error) is not None


def _of_other_kind(error: BaseException, file: str, where: str) -> str | None:
    """Advice where a file stands in a folder's place or the other way round, in what is written; None elsewhere."""
    if not isinstance(error, OSError) or error.errno not in OTHER_KIND:
        return None
    path, folder = os.path.abspath(file), os.path.abspath(where)
    is_written = path == folder or path.startswith(folder + os.sep) or folder.startswith(path + os.sep)
    return OTHER_KIND[error.errno] if is_written else None


def _number(error: BaseException) -> int | None:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = NUMBER.search(str(error))
        number = int(found.group(1)) if found else None
    if number is None and "no space left" in str(error).lower():
        number = errno.ENOSPC
    return number if number in ADVICE else None
