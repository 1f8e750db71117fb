"""Trained weights on disk: safetensors beside a JSON file that is written last and names their checksum.

Imports torch only where weights are read or written: to ask whether they exist needs none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.model import MODELS

if TYPE_CHECKING:
    import torch

    from nlproar.model.bilstm_attention import BiLSTMAttention

WEIGHTS, DESCRIPTION = "weights.safetensors", "checkpoint.json"


def build(model_type: str, shape: Mapping[str, Any]) -> BiLSTMAttention:
    """An untrained model: `shape` holds the arguments of its constructor."""
    module, _, name = MODELS[model_type].partition(":")
    model: BiLSTMAttention = getattr(import_module(module), name)(**shape)
    return model


def save(folder: Path, model: torch.nn.Module, description: Mapping[str, Any]) -> None:
    """Write `folder`; the caller holds the lock of the run. `description` has keys
    model_type, shape (arguments of its constructor), dataset (digest) and config (identity of the run)."""
    import safetensors.torch

    (folder / DESCRIPTION).unlink(missing_ok=True)  # from here until the end there is no checkpoint
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with storage.whole_file(folder / WEIGHTS) as file:
        file.write(safetensors.torch.save(tensors))
    storage.write_json(folder / DESCRIPTION, {**description, "sha256": storage.sha256(folder / WEIGHTS)})


def exists(folder: Path) -> bool:
    return (folder / DESCRIPTION).exists()


def sha256(folder: Path) -> str:
    """What identifies the weights in `folder`."""
    return str(_describe(folder)["sha256"])


def load(folder: Path, dataset_digest: str, config: Mapping[str, Any], remedy: str) -> BiLSTMAttention:
    """The model in `folder`, on the CPU. Raises UserError, naming the file and `remedy` (a command), if it is damaged,
    was trained on other data than `dataset_digest`, or by another run than `config`."""
    try:
        description = _describe(folder)
        return _load(folder, description, dataset_digest, config)
    except UserError as error:
        raise UserError(f"{error}; train it again: {remedy}") from error


def _load(folder: Path, description: dict[str, Any], dataset_digest: str, config: Mapping[str, Any]) -> BiLSTMAttention:
    import safetensors.torch

    weights = folder / WEIGHTS
    if not weights.exists() or storage.sha256(weights) != description["sha256"]:
        raise UserError(f"{weights} is damaged: its checksum is not the one in {DESCRIPTION}")
    if description["dataset"] != dataset_digest:
        raise UserError(f"{folder} was trained on other data than are there now")
    if description["config"] != config:
        raise UserError(f"{folder} holds the model of another run")
    try:
        model = build(description["model_type"], description["shape"])
        model.load_state_dict(safetensors.torch.load(storage.read_bytes(weights)))
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder / DESCRIPTION} does not describe {WEIGHTS} ({type(error).__name__})") from error
    return model


def _describe(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(storage.read_bytes(path).decode())
        for name in ("sha256", "dataset", "config", "model_type", "shape"):
            description[name]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error})") from error
    return description
