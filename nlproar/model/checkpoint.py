"""Trained weights on disk: safetensors beside a JSON file that is written last and names their checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from nlproar import storage
from nlproar.errors import UserError
from nlproar.model import MODELS
from nlproar.model.bilstm_attention import BiLSTMAttention

WEIGHTS, DESCRIPTION = "weights.safetensors", "checkpoint.json"


def build(model_type: str, shape: Mapping[str, Any]) -> BiLSTMAttention:
    """An untrained model: `shape` holds the arguments of its constructor."""
    module, _, name = MODELS[model_type].partition(":")
    model: BiLSTMAttention = getattr(import_module(module), name)(**shape)
    return model


def save(folder: Path, model: torch.nn.Module, description: Mapping[str, Any]) -> None:
    """Write `folder`; the caller holds the lock of the run. `description` has keys model_type, shape and dataset."""
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


def load(folder: Path, dataset_digest: str) -> BiLSTMAttention:
    """The model in `folder`, on the CPU. Raises UserError, naming the file, if it is damaged or of other data."""
    description = _describe(folder)
    weights = folder / WEIGHTS
    if not weights.exists() or storage.sha256(weights) != description["sha256"]:
        raise UserError(
            f"{weights} is damaged: its checksum is not the one in {DESCRIPTION}; train it again with --overwrite"
        )
    if description["dataset"] != dataset_digest:
        raise UserError(f"{folder} was trained on other data than are there now; train it again with --overwrite")
    model = build(description["model_type"], description["shape"])
    model.load_state_dict(safetensors.torch.load(weights.read_bytes()))
    return model


def _describe(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        description["sha256"], description["dataset"], description["model_type"], description["shape"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); train it again with --overwrite") from error
    return description
