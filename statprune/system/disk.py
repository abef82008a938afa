"""What a disk refuses, as sentences: full, over quota, read-only, forbidden."""

import errno
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
NUMBER = re.compile(r"(?:os error |errno )(\d+)", re.IGNORECASE)  # as Rust and Arrow write it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_problem(error: BaseException, where: str) -> str | None:
    """What a disk refused, in one sentence, or None where the error is of another kind.

    Args:
        error: what was raised, or what raised it.
        where: what was written to, where the error names no file.
    """
    number = _number(error)
    if number is None:
        return None
    file = getattr(error, "filename", None) or where
    return f"{file} can't be written to ({first_line(error)}); {ADVICE[number]}"


def is_disk_error(error: BaseException) -> bool:
    """Whether a disk that is full or can't be written to is the reason of an error."""
    return _number(error) is not None


def _number(error: BaseException) -> int | None:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        found = NUMBER.search(str(error))
        number = int(found.group(1)) if found else None
    if number is None and "no space left" in str(error).lower():
        number = errno.ENOSPC
    return number if number in ADVICE else None
