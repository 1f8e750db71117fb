"""Training and testing. The only module that knows pytorch_lightning."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from nlproar import metrics
from nlproar.dataset.batch import FixedBatches, SequenceBatch, TrainingBatches
from nlproar.dataset.encoding import Split
from nlproar.errors import UserError
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.progress import stage

log = logging.getLogger(__name__)

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-5
CEILING = {"accuracy": 1.0, "auroc": 1.0, "macro_f1": 1.0, "micro_f1": 1.0}
_EVALUATION_TOKENS = 16_384


@dataclass(frozen=True)
class Epoch:
    epoch: int  # from 1
    loss: float  # mean over the training observations, while they are learned
    monitor: float  # on the validation split, afterwards
    seconds: float


@dataclass(frozen=True)
class Training:
    epochs: list[Epoch]
    best_epoch: int

    def as_record(self) -> dict[str, Any]:
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "best_epoch": self.best_epoch}


def fit(
    model: BiLSTMAttention,
    train: Split,
    val: Split,
    *,
    batch_size: int,
    max_epochs: int,
    monitor: str,
    shuffle_seed: int,
    device: torch.device,
) -> Training:
    """Train `model` in place, on `device`, and leave it with the weights of its best epoch.

    Best is the first epoch with the highest `monitor` on `val`. Training stops when the monitor cannot rise any
    further: no later epoch could be chosen. Raises UserError when the loss is not finite.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    batches = TrainingBatches(train, batch_size, shuffle_seed)
    with stage("training", max_epochs * len(batches), "steps") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and devices that were chosen on purpose
        learner = _Learner(model, val, monitor, max_epochs, bar.update)
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            deterministic="warn",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        # a deterministic run also overwrites all memory it asks for with NaN, a fifth of the time of a step
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            trainer.fit(learner, train_dataloaders=batches)
        except SystemExit as error:  # what Lightning makes of Ctrl-C and SIGTERM
            if trainer.received_sigterm:
                raise SystemExit(128 + signal.SIGTERM) from error
            raise KeyboardInterrupt from error
    model.load_state_dict(learner.best_weights)
    model.to(device)
    return Training(learner.epochs, learner.best_epoch)


class _Learner(pl.LightningModule):
    """One run of training; validation is a call of `predict`, so that nothing is computed twice."""

    def __init__(self, model: BiLSTMAttention, val: Split, monitor: str, max_epochs: int, on_step: Any) -> None:
        super().__init__()
        self.model, self.val, self.monitor, self.max_epochs, self.on_step = model, val, monitor, max_epochs, on_step
        self.epochs: list[Epoch] = []
        self.best_epoch, self.best_weights = 0, dict[str, Tensor]()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        undecayed = {id(parameter) for parameter in self.model.undecayed()}
        groups = [
            {"params": [p for p in self.model.parameters() if id(p) not in undecayed], "weight_decay": WEIGHT_DECAY},
            {"params": self.model.undecayed(), "weight_decay": 0.0},
        ]
        return torch.optim.Adam([g for g in groups if g["params"]], lr=LEARNING_RATE, amsgrad=True, fused=True)

    def on_train_epoch_start(self) -> None:
        self.started = time.monotonic()
        self.total_loss, self.seen = torch.zeros((), device=self.device), 0

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        loss = torch.nn.functional.cross_entropy(self.model(batch).logits, batch.label)
        self.total_loss += loss.detach() * len(batch.label)
        self.seen += len(batch.label)
        self.on_step(1)
        return loss

    def on_train_epoch_end(self) -> None:
        number, loss = len(self.epochs) + 1, float(self.total_loss) / self.seen
        if not torch.isfinite(torch.tensor(loss)):
            raise UserError(
                f"the training loss of epoch {number} is {loss}; are the numbers of the vectors very large?"
            )
        value = metrics.evaluate(predict(self.model, self.val), torch.from_numpy(self.val.label))[self.monitor]
        self.epochs.append(Epoch(number, loss, value, time.monotonic() - self.started))
        best = max(epoch.monitor for epoch in self.epochs[:-1]) if number > 1 else -1.0
        if value > best:
            self.best_epoch = number
            self.best_weights = {name: v.detach().clone() for name, v in self.model.state_dict().items()}
        log.info(
            "epoch %d/%d: loss %.4f, validation %s %.4f%s, %.1f s", number, self.max_epochs, loss, self.monitor, value,
            " (best)" if value > best else "", self.epochs[-1].seconds,
        )  # fmt: skip
        if value >= CEILING[self.monitor]:
            self.trainer.should_stop = True


@torch.no_grad()
def predict(model: BiLSTMAttention, split: Split) -> Tensor:
    """Logits (N, C) of every observation of `split`, in its order, on the CPU."""
    device = next(model.parameters()).device
    parts, order = [], []
    for rows, batch in FixedBatches(split, _EVALUATION_TOKENS):
        parts.append(model(batch.to(device)).logits.cpu())
        order.append(torch.from_numpy(rows))
    logits = torch.cat(parts)
    out = torch.empty_like(logits)
    out[torch.cat(order)] = logits
    return out


def test(model: BiLSTMAttention, split: Split) -> dict[str, float]:
    """The metrics of `model` on `split`."""
    return metrics.evaluate(predict(model, split), torch.from_numpy(split.label))
