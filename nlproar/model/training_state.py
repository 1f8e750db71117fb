"""The state of a training that is under way: everything that its next epoch depends on.

It is one file of plain arrays beside the weights of a run. It is written after every epoch, whole or not at all, and
removed once the run has its record. A process that is killed loses the epoch it was at and no more: the next one reads
the state and continues, and its numbers are those of a training that nothing disturbed.

Imports torch only where a state is read: to remove one needs none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar import storage

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it when the meaning of an array changes

Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a training has found."""

    epoch: int  # from 1
    loss: float  # mean over the training observations, while they are learned
    monitor: float  # on the validation split, afterwards
    seconds: float
    val: Mapping[str, float] = field(default_factory=dict)  # every metric on the validation split


@dataclass(frozen=True)
class TrainingState:
    """A training after a whole epoch. The tensors are those that are trained, or, of a state that was read, on the
    CPU."""

    epochs: list[Epoch]
    best_epoch: int
    weights: Tensors  # after the last epoch
    best_weights: Tensors  # after the best epoch
    optimizer: dict[int, Tensors]  # what the optimizer keeps, by the number of the parameter
    batch_order: dict[str, Any]  # of numpy's generator
    random: Tensors  # of torch's generators, by the type of device


def write(path: Path, key: Mapping[str, Any], state: TrainingState) -> None:
    """Write `state`, made under `key` (what JSON can hold). The caller holds the lock of the run."""
    tensors = {f"weights.{name}": value for name, value in state.weights.items()}
    if state.best_epoch != len(state.epochs):  # else they are the weights
        tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    for number, kept in state.optimizer.items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in kept.items()}
    tensors |= {f"random.{name}": value for name, value in state.random.items()}
    progress = {
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "best_epoch": state.best_epoch,
        "batch_order": state.batch_order,
        "arrays": sorted(tensors),
    }
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}  # on a CPU no copy
    arrays["progress"] = np.frombuffer(json.dumps(progress).encode(), dtype=np.uint8)
    storage.write_arrays(path, _with_format(key), arrays)


def read(path: Path, key: Mapping[str, Any]) -> TrainingState | None:
    """The state in `path`. None where there is none, and, with a warning, where the file is damaged or was made under
    another key."""
    found = storage.stored(path)
    if found is None:
        return None
    arrays, made_for = found
    different = _differences(made_for, _with_format(key))
    if different:
        log.warning(
            "%s is the state of another training (different: %s); training starts at epoch 1",
            path,
            ", ".join(different),
        )
        return None
    try:
        return _unpack(arrays)
    except (KeyError, ValueError, TypeError) as error:
        log.warning("%s holds no state of this training (%r); training starts at epoch 1", path, error)
        return None


def remove(path: Path) -> None:
    """Remove a state that is needed no more, as the run has its record. The caller holds the lock of the run."""
    path.unlink(missing_ok=True)


def digest(values: Mapping[str, Any]) -> str:
    """Hash of named arrays, numbers or None: of their names, types, shapes and content."""
    state = hashlib.sha256()
    for name, value in values.items():
        if value is None:
            state.update(f"{name} none".encode())
            continue
        array = np.asarray(value)
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _with_format(key: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **key}


def _differences(one: Any, other: dict[str, Any]) -> list[str]:
    """The names under which two keys differ, after the way through JSON that the first one has taken."""
    other = json.loads(json.dumps(other))
    if not isinstance(one, dict):
        return ["everything"]
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _unpack(arrays: storage.Arrays) -> TrainingState:
    """Raises KeyError, ValueError or TypeError for arrays that `write` has not made."""
    progress = json.loads(arrays["progress"].tobytes())
    if progress["arrays"] != sorted(arrays.keys() - {"progress"}):
        raise ValueError("arrays are missing")
    epochs = [Epoch(**epoch) for epoch in progress["epochs"]]
    optimizer: dict[int, Tensors] = {}
    for name, value in _below(arrays, "optimizer").items():
        number, _, kept = name.partition(".")
        optimizer.setdefault(int(number), {})[kept] = value
    weights = _below(arrays, "weights")
    best_weights = weights if progress["best_epoch"] == len(epochs) else _below(arrays, "best")
    return TrainingState(
        epochs=epochs,
        best_epoch=progress["best_epoch"],
        weights=weights,
        best_weights=best_weights,
        optimizer=optimizer,
        batch_order=progress["batch_order"],
        random=_below(arrays, "random"),
    )


def _below(arrays: storage.Arrays, first: str) -> Tensors:
    """The arrays whose names start with `first` and a point, by the rest of their names."""
    import torch

    found = {}
    for name, value in arrays.items():
        if name.startswith(f"{first}."):
            found[name.removeprefix(f"{first}.")] = torch.from_numpy(value)
    return found
