"""The error for everything a user can mend: shown as one line, exit code 2, no traceback."""

from __future__ import annotations

import errno

# What the machine refuses, which is no bug of ours. Names, as not every system has all of them.
_REFUSALS = (
    "EACCES", "EAGAIN", "EBUSY", "EDQUOT", "EEXIST", "EFBIG", "EHOSTDOWN", "EHOSTUNREACH", "EILSEQ", "EIO", "EISDIR",
    "ELOOP", "EMFILE", "EMLINK", "ENAMETOOLONG", "ENFILE", "ENODEV", "ENOLCK", "ENOMEM", "ENOSPC", "ENOTCONN",
    "ENOTDIR", "ENOTEMPTY", "ENXIO", "EOPNOTSUPP", "EPERM", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT", "ETXTBSY",
)  # fmt: skip
_NUMBERS = {getattr(errno, name) for name in _REFUSALS if hasattr(errno, name)}

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another --persistent-dir",
    errno.EDQUOT: "free some space, or choose another --persistent-dir",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "choose a --persistent-dir that can be written",
    errno.EIO: "check the disk or the file server",
    errno.ESTALE: "the file server lost it; run the same command again",
    errno.EEXIST: "something else is in the place of a folder; move it away",
    errno.ENOTDIR: "something else is in the place of a folder; move it away",
    errno.EISDIR: "it is in the place of a file; move it away",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class UserError(Exception):
    """What is wrong, with what, and what to do, in one sentence or two."""


def refusal(error: OSError) -> UserError | None:
    """What to say where the machine refuses something: no space, no permission. None if it is a bug of ours."""
    if error.errno is None or error.errno not in _NUMBERS:
        return None
    place = error.filename if error.filename is not None else "standard output or a temporary file"
    remedy = _REMEDIES.get(error.errno)
    return UserError(f"{error.strerror}: {place}" + (f"; {remedy}" if remedy else ""))
