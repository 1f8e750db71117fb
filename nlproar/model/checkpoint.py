"""Trained weights on disk: safetensors beside a JSON file that names them and says what they were trained on.

Weights are written under a name of their own, and the JSON file then switches from the old ones to the new ones in one
step. So a process that is killed at any moment leaves a whole checkpoint: the old one or the new one.

Imports torch only where weights are read or written: to ask whether they exist needs none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.errors import UserError

if TYPE_CHECKING:
    import torch

    from nlproar.model.classifier import Classifier

DESCRIPTION = "checkpoint.json"
_OLD_WEIGHTS = "weights.safetensors"  # of checkpoints that were written before weights had names of their own
_WEIGHTS_NAME = re.compile(r"weights(-[0-9a-f]{8})?\.safetensors")
_REQUIRED = {"sha256": str, "dataset": str, "config": dict, "model_type": str, "shape": dict, "masks": str}


def save(folder: Path, model: torch.nn.Module, description: Mapping[str, Any]) -> str:
    """Write the checkpoint in `folder`, in place of an older one, and return the checksum of its weights.

    The caller holds the lock of the run. `description` has keys model_type, shape (arguments of its constructor),
    dataset (digest), config (identity of the run), masks (digest of the masks it was trained on) and vectors (what
    identifies the vectors it started from, or None).
    """
    import safetensors.torch

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors)
    checksum = hashlib.sha256(content).hexdigest()
    name = f"weights-{checksum[:8]}.safetensors"
    with storage.whole_file(folder / name) as file:
        file.write(content)
    whole = {**description, "file": name, "sha256": checksum}
    storage.write_json(folder / DESCRIPTION, {**whole, "checksum": storage.digest(whole)})
    # Nothing names the older weights any more. Killed before this loop, the run has no record of its new weights yet,
    # so it is made again and comes here again.
    for path in _weights_in(folder):
        if path.name != name:
            path.unlink()
    return checksum


def describe_again(folder: Path, description: Mapping[str, Any]) -> None:
    """Write another description of the weights that are in `folder`."""
    whole = {name: value for name, value in description.items() if name != "checksum"}
    storage.write_json(folder / DESCRIPTION, {**whole, "checksum": storage.digest(whole)})


def exists(folder: Path) -> bool:
    """Return whether there is a checkpoint in `folder`."""
    return storage.is_there(folder / DESCRIPTION)


def is_any_left(folder: Path) -> bool:
    """Return whether there is a checkpoint in `folder`, or weights that no description names any more."""
    return exists(folder) or any(_weights_in(folder))


def _weights_in(folder: Path) -> Iterator[Path]:
    return folder.glob("weights*.safetensors")


def discard(folder: Path) -> int:
    """Remove the checkpoint in `folder`, if there is one, and return how many bytes of weights that were.

    The caller holds the lock of the run. The description goes first: without it there is no checkpoint, so a process
    that is killed between two steps leaves none, and the next call removes the weights that are left.
    """
    (folder / DESCRIPTION).unlink(missing_ok=True)
    freed = 0
    for path in _weights_in(folder):
        freed += path.lstat().st_size
        path.unlink()
    with suppress(OSError):  # it is not there, or holds something else, such as the state of a training
        folder.rmdir()
    return freed


def size(folder: Path) -> int:
    """Return the bytes of the weights in `folder`."""
    weights = folder / str(describe(folder)["file"])
    return weights.stat().st_size


def sha256(folder: Path) -> str:
    """What identifies the weights in `folder`."""
    return str(describe(folder)["sha256"])


class Absent(UserError):
    """There is no checkpoint, or not any more."""


class ReplacedMeanwhile(UserError):
    """The weights that were to be read are there no more: another process trained the model again."""


def load(
    folder: Path, dataset_digest: str, config: Mapping[str, Any], remedy: str, weights: str | None = None
) -> Classifier:
    """The model in `folder`, on the CPU.

    Raises UserError, naming the file and `remedy` (a command), if it is damaged, was trained on other data than
    `dataset_digest`, or by another run than `config`. Raises ReplacedMeanwhile if its weights have not the checksum
    `weights` (any, if None) that the caller found before, and Absent if there is no checkpoint (any more).
    """
    try:
        description = describe(folder)
        if weights not in (None, description["sha256"]):
            raise _replaced(folder)
        return _load(folder, description, dataset_digest, config)
    except (Absent, ReplacedMeanwhile):
        raise
    except UserError as error:
        raise UserError(f"{error}; train it again: {remedy}") from error


def _replaced(folder: Path) -> ReplacedMeanwhile:
    return ReplacedMeanwhile(
        f"{folder.name} was trained again by another process while its model was being explained;"
        " the same command explains the new one"
    )


def _load(folder: Path, description: dict[str, Any], dataset_digest: str, config: Mapping[str, Any]) -> Classifier:
    import safetensors.torch

    from nlproar.model.classifier import build

    weights = folder / description["file"]
    try:
        content = storage.read_bytes(weights)
    except FileNotFoundError as error:
        if describe(folder)["sha256"] != description["sha256"]:  # or Absent: it was discarded meanwhile
            raise _replaced(folder) from error
        raise UserError(f"{weights} is damaged: {DESCRIPTION} names it, and it is not there") from error
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise UserError(f"{weights} is damaged: its checksum is not the one in {DESCRIPTION}")
    if description["dataset"] != dataset_digest:
        raise UserError(f"{folder} was trained on data that differ from the current ones")
    if description["config"] != config:
        raise UserError(f"{folder} holds the model of another run")
    try:
        model = build(description["model_type"], description["shape"])
        model.load_state_dict(safetensors.torch.load(content))
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:  # what torch makes of an odd shape
        raise UserError(f"{folder / DESCRIPTION} does not describe {weights.name} ({type(error).__name__})") from error
    return model


def describe(folder: Path, old_version: bool = False) -> dict[str, Any]:
    """Return what the checkpoint says of itself: the keys that `save` was given, `file` and `sha256`.

    Raises Absent if there is none, and UserError, naming the file, if it is damaged or cannot be read. Checkpoints of
    earlier versions lack `masks` and `vectors`; they are read with `old_version` only, to be converted.
    """
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(storage.read_bytes(path).decode())
        _check(description, old_version)
    except OSError as error:
        is_absent = isinstance(error, FileNotFoundError) and not storage.is_there(path)  # a link to nowhere is damage
        kind = Absent if is_absent else UserError
        raise kind(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error})") from error
    description.setdefault("file", _OLD_WEIGHTS)
    return description


def _check(description: dict[str, Any], old_version: bool) -> None:
    """Raises KeyError, TypeError or ValueError for what `save` has not written."""
    for name, kind in _REQUIRED.items():
        if name == "masks" and old_version:
            continue
        if not isinstance(description[name], kind):
            raise TypeError(f"{name} is not a {kind.__name__}")
    if "file" in description and not _WEIGHTS_NAME.fullmatch(description["file"]):
        raise ValueError("file is not a name of weights")
    if "checksum" in description or "file" in description:
        rest = {name: value for name, value in description.items() if name != "checksum"}
        if description["checksum"] != storage.digest(rest):
            raise ValueError("its checksum does not match its content")
