"""The device that models are trained and explained on."""

from __future__ import annotations

import torch

from nlproar.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device of `--device`: `auto` is the first GPU, else the CPU.

    Raises UserError for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0][:120]}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: choose auto, cpu, cuda, cuda:1, ... or mps")
    return device


def name_of(device: torch.device) -> str:
    """Return the name of a device for a record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
