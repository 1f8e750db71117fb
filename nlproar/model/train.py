"""Training and testing. The only module that knows pytorch_lightning."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlproar import masking, metrics, process
from nlproar.dataset.batch import FixedBatches, RandomlyMaskedBatches, SequenceBatch, TrainingBatches
from nlproar.dataset.encoding import Split
from nlproar.errors import UserError
from nlproar.flags import values_of
from nlproar.model import training_state
from nlproar.model.classifier import Classifier
from nlproar.model.modes import in_mode
from nlproar.model.recipes import Recipe
from nlproar.model.training_state import Epoch, Tensors, TrainingState
from nlproar.progress import Bar, stage
from nlproar.seeds import derive

with process.without_rank():
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

# Metrics that cannot rise any further: training stops there, as no later epoch could be chosen.
CEILING = {"accuracy": 1.0, "auroc": 1.0, "macro_f1": 1.0, "micro_f1": 1.0}


@dataclass(frozen=True)
class Training:
    """What a training has done."""

    parameters: int  # of the model
    epochs: list[Epoch]
    best_epoch: int
    earlier_epochs: int = 0  # how many of them an earlier process trained

    @property
    def earlier_seconds(self) -> float:
        """The time that earlier processes took for their epochs."""
        return sum(epoch.seconds for epoch in self.epochs[: self.earlier_epochs])

    def as_record(self) -> dict[str, Any]:
        """Return what a record tells of it."""
        epochs = [asdict(epoch) for epoch in self.epochs]
        return {"epochs": epochs, "best_epoch": self.best_epoch, "parameters": self.parameters}


def fit(
    model: Classifier,
    train: Split,
    val: Split,
    *,
    recipe: Recipe,
    monitor: str,
    seed: int,
    device: torch.device,
    mask_at_random: bool = False,
    tensorboard: Path | None = None,
    state: Path | None = None,
    state_key: Mapping[str, Any] | None = None,
) -> Training:
    """Train `model` in place, on `device`, and leave it with the weights of its best epoch.

    `recipe` says how long it is trained, in batches of which size, and with which optimizer. The order of the batches
    and dropout have seeds that are derived from `seed`. Best is the first epoch with the highest `monitor` on `val`.
    Training stops when the monitor cannot rise any further: no later epoch could be chosen. Raises UserError when the
    loss is not finite.

    With `mask_at_random` the model learns to predict masked data, too (Madsen et al. 2023): in every epoch half of the
    training observations are masked at random, see `RandomlyMaskedBatches`, and `monitor` is measured on `val` and a
    randomly masked copy of it together.

    With `tensorboard`, a folder, loss and validation metrics of every epoch are written there for TensorBoard.

    With `state`, a path, the state of the training is written there after every epoch, and a training that was killed
    continues after its last whole epoch, with the same numbers as one that was not. `state_key` (what JSON can hold)
    says which training it is; the data, the initial weights, the settings above, the device and the number of threads
    are compared besides. The caller holds the lock of the run, and removes the state when it needs it no more.

    While this lasts, SIGTERM, SIGUSR1 and SIGUSR2 end the process with exit code 128 + their number (SystemExit),
    unless the caller has a handler for them. Nothing is read from the variables of a cluster or the current folder.
    """
    _make_deterministic()
    dropout_seed = derive(seed, "dropout")
    kind = RandomlyMaskedBatches if mask_at_random else TrainingBatches
    batches = kind(train, recipe.batch_size, derive(seed, "shuffling"))
    if mask_at_random:
        val = val.followed_by(_masked_copy(val, derive(seed, "masks of validation")))
    key: dict[str, Any] = {}
    if state is not None:
        settings = {"recipe": values_of(recipe), "monitor": monitor, "seed": seed}  # no place of a file
        if mask_at_random:
            settings["mask_at_random"] = True
        key = {**(state_key or {}), **settings, **_origin(model, train, val, device)}
    learner = _Learner(model, batches, val, monitor, recipe, state, key)
    if tensorboard is not None:
        learner.curves = _curves(tensorboard)
    with in_mode(model, training=True), _random_numbers(device, dropout_seed):
        earlier = training_state.read(state, key) if state else None
        if earlier:
            learner.continue_from(earlier)
        if not learner.finished:
            _train(learner, device)
    model.load_state_dict(learner.best_weights)
    model.to(device)
    size = sum(parameter.numel() for parameter in model.parameters())
    return Training(size, learner.epochs, learner.best_epoch, len(earlier.epochs) if earlier else 0)


def _curves(folder: Path) -> TensorBoardLogger:
    """Return the logger of curves in `folder`. Raises UserError where TensorBoard is not installed."""
    try:
        logger = TensorBoardLogger(folder.parent, name=folder.name, version="")
        _ = logger.experiment  # which imports it
    except ModuleNotFoundError as error:
        raise UserError("--tensorboard needs another package; install it with: pip install tensorboard") from error
    return logger


def _masked_copy(split: Split, seed: int) -> Split:
    """Return a split whose observations are all masked at random."""
    return split.masked(masking.mask_at_random(split.maskable, split.offsets, np.random.default_rng(seed), share=1.0))


def _train(learner: _Learner, device: torch.device) -> None:
    """Train the epochs that are left."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    epochs = learner.max_epochs - len(learner.epochs)
    with stage("training", epochs * len(learner.batches), "steps") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and devices that were chosen on purpose
        learner.bar = bar
        trainer = _Trainer(epochs, device, learner.recipe.acc_batches)
        try:
            with learner.ending:
                trainer.fit(learner, train_dataloaders=learner.batches)
        except _Signalled as signalled:
            log.info("stopped by %s in epoch %d of %d%s", signalled.name, len(learner.epochs) + 1, learner.max_epochs,
                     "; the same command continues there" if learner.state else "")  # fmt: skip
            raise
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error


# What surrounds the loop


def _make_deterministic() -> None:
    """Let torch compute the same numbers every time, also in what follows training."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # a deterministic run also overwrites all memory it asks for with NaN, a fifth of the time of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def _random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """While this lasts, torch's generators (of dropout) start from `seed`; afterwards they are as they were."""
    before = _random_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        _set_random_state(before, device)


def _random_state(device: torch.device) -> Tensors:
    """The states of torch's generators that a training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_state(states: Tensors, device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


def _origin(model: Classifier, train: Split, val: Split, device: torch.device) -> dict[str, Any]:
    """What the numbers of a training depend on besides its settings, up to the last bits.

    The data are those that are trained on, masks included. Machines are not told apart: on another processor the last
    bits of a training that continues there can be others than those of either machine.
    """
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "initial_weights": training_state.digest(weights),
        "train": training_state.digest(vars(train)),
        "val": training_state.digest(vars(val)),
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class _Signalled(SystemExit):
    """The process was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class _Ending:
    """While this is entered, a signal that asks the process to end and has no handler raises _Signalled.

    Afterwards all handlers are those that were there before, also that of Ctrl-C, which Lightning changes. In a thread
    other than the main one, where no handler can be set, nothing is changed.
    """

    # What batch systems send before the time limit: by default, or with --signal.
    NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.received: int | None = None
        self.is_postponed = False

    def __enter__(self) -> _Ending:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, *self.NUMBERS)}
            for number in self.NUMBERS:
                if self.before[number] is signal.SIG_DFL:
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            if handler is not None:  # None: it was not set by Python
                signal.signal(number, handler)

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """While this lasts, a signal waits: an exception within a print would print the line twice."""
        self.is_postponed = True
        try:
            yield
        finally:
            self.is_postponed = False
        if self.received is not None:
            raise _Signalled(self.received)

    def _receive(self, number: int, _: object) -> None:
        self.received = number
        if not self.is_postponed:
            raise _Signalled(number)


# Lightning


class _NoSignals:
    """In the place of Lightning's connector of signals: no handler is installed. On Slurm that one would write a
    pickle into the current folder and requeue the job at SIGUSR1."""

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        pass

    def teardown(self) -> None:
        pass


class _Trainer(pl.Trainer):
    """Lightning's loop on one device, in one process, wherever it runs.

    By itself, Lightning takes its settings also from variables of Slurm, torchrun, LSF and MPI, from PL_TRAINER_*
    (which it looks up by the names of these parameters and of this class), and continues from a hpc_ckpt_*.ckpt in
    the current folder.
    """

    def __init__(self, max_epochs: int, device: torch.device, acc_batches: int) -> None:
        super().__init__(
            max_epochs=max_epochs,
            accumulate_grad_batches=acc_batches,
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            plugins=[LightningEnvironment()],
            default_root_dir=os.path.join(os.devnull, "nowhere"),  # no folder, and nobody can make it one
            deterministic="warn",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        self._signal_connector = _NoSignals()  # type: ignore[assignment]


class _Learner(pl.LightningModule):
    """One training; validation is a call of `predict`, so that nothing is computed twice."""

    bar: Bar

    def __init__(
        self,
        model: Classifier,
        batches: TrainingBatches,
        val: Split,
        monitor: str,
        recipe: Recipe,
        state: Path | None,
        key: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.batches, self.val = model, batches, val
        self.monitor, self.recipe, self.max_epochs = monitor, recipe, recipe.max_epochs
        self.state, self.key = state, key
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: Tensors = {}
        self.ending = _Ending()
        self.earlier: TrainingState | None = None
        self.step = 0  # of the optimizer, in all epochs
        self.rates: list[float] = []  # the full learning rate of each group of parameters
        self.curves: TensorBoardLogger | None = None  # where loss and metrics of every epoch are shown

    @property
    def steps_of_an_epoch(self) -> int:
        """How many steps the optimizer takes in an epoch; the last one may add up fewer batches."""
        return -(-len(self.batches) // self.recipe.acc_batches)

    @property
    def finished(self) -> bool:
        """Whether no epoch is left that could be chosen."""
        if not self.epochs:
            return False
        return len(self.epochs) >= self.max_epochs or self.epochs[-1].monitor >= CEILING[self.monitor]

    def continue_from(self, state: TrainingState) -> None:
        """Go on after the last epoch of `state`."""
        self.earlier = state  # for the optimizer, which is yet to be made
        self.epochs, self.best_epoch = list(state.epochs), state.best_epoch
        self.best_weights = state.best_weights
        self.batches.state = state.batch_order
        self.model.load_state_dict(state.weights)
        done = len(self.epochs)
        self.step = done * self.steps_of_an_epoch
        if self.finished:
            log.info("trained already: %d of %d epochs are in %s", done, self.max_epochs, self.state)
        else:
            log.info("continuing at epoch %d of %d", done + 1, self.max_epochs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.model.optimizer(self.recipe)
        if self.earlier:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": self.earlier.optimizer})
        self.rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        steps = self.max_epochs * self.steps_of_an_epoch
        share = self.model.schedule(self.recipe, self.step, steps)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.step += 1

    def on_fit_start(self) -> None:
        if self.earlier:
            _set_random_state(self.earlier.random, self.device)

    def on_train_epoch_start(self) -> None:
        self.started = time.monotonic()
        self.total_loss, self.seen = torch.zeros((), device=self.device), 0

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        loss = torch.nn.functional.cross_entropy(self.model(batch).logits, batch.label)
        self.total_loss += loss.detach() * len(batch.label)
        self.seen += len(batch.label)
        with self.ending.postponed():
            self.bar.update(1)
        return loss

    def on_train_epoch_end(self) -> None:
        number, loss = len(self.epochs) + 1, float(self.total_loss) / self.seen
        if not torch.isfinite(torch.tensor(loss)):
            raise UserError(
                f"the training loss of epoch {number} is {loss}; are the numbers of the vectors very large?"
            )
        found = test(self.model, self.val)
        value = found[self.monitor]
        best = max(epoch.monitor for epoch in self.epochs) if self.epochs else -1.0
        self.epochs.append(Epoch(number, loss, value, time.monotonic() - self.started, found))
        if self.curves is not None:
            self.curves.log_metrics({"train/loss": loss, **{f"val/{name}": v for name, v in found.items()}}, number)
            self.curves.experiment.flush()
        if value > best:
            self.best_epoch = number
            self.best_weights = {name: v.detach().clone() for name, v in self.model.state_dict().items()}
        if self.state:
            training_state.write(self.state, self.key, self._state())
        with self.ending.postponed():
            log.info(  # what this says is on disk
                "epoch %d/%d: loss %.4f, validation %s %.4f%s, %.1f s", number, self.max_epochs, loss, self.monitor,
                value, " (best)" if value > best else "", self.epochs[-1].seconds,
            )  # fmt: skip
        self.trainer.should_stop = self.finished

    def _state(self) -> TrainingState:
        return TrainingState(
            epochs=self.epochs,
            best_epoch=self.best_epoch,
            weights=self.model.state_dict(),
            best_weights=self.best_weights,
            optimizer=self.trainer.optimizers[0].state_dict()["state"],
            batch_order=self.batches.state,
            random=_random_state(self.device),
        )


# Testing


def predict(model: Classifier, split: Split) -> Tensor:
    """Return the logits (N, C) of every observation of `split`, in its order, on the CPU.

    The model is in evaluation mode meanwhile.
    """
    device = next(model.parameters()).device
    parts, order = [], []
    with torch.no_grad(), in_mode(model, training=False):
        for rows, batch in FixedBatches(split, model.evaluation_tokens):
            parts.append(model(batch.to(device)).logits.cpu())
            order.append(torch.from_numpy(rows))
    logits = torch.cat(parts)
    out = torch.empty_like(logits)
    out[torch.cat(order)] = logits
    return out


def test(model: Classifier, split: Split) -> dict[str, float]:
    """Return the metrics of `model` on `split`."""
    return metrics.evaluate(predict(model, split), torch.from_numpy(split.label))
