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
    if device.type == "mps":
        raise UserError(f"--device {name}: measures need double precision, which this device lacks; choose cpu or cuda")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: choose auto, cpu, cuda, cuda:1, ...")
    return device


def make_deterministic() -> None:
    """Let torch compute the same numbers every time, in single precision. The settings stay for the whole process.

    Training and explaining both need them: else what an explanation is on a GPU would depend on whether this process
    has trained before.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # Otherwise torch would also fill all new memory with NaN, which takes a fifth of the time of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # By default, an LSTM on a GPU computes with 10 bits of mantissa (TF32), too few for an integrated gradient.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def name_of(device: torch.device) -> str:
    """Return the name of a device for a record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
