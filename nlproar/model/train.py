"""Training and testing of classifiers. No other module uses PyTorch Lightning.

`fit` trains a model, `predict` returns its logits, and `test` returns its metrics. Letters: N observations, C classes.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlproar import masking, metrics, process
from nlproar.dataset.batch import (
    FixedBatches,
    RandomlyMaskedBatches,
    SequenceBatch,
    TrainingBatches,
)
from nlproar.dataset.encoding import Split
from nlproar.dataset.task import METRICS
from nlproar.errors import UserError
from nlproar.flags import values_of
from nlproar.model import training_state
from nlproar.model.classifier import Classifier
from nlproar.model.device import make_deterministic
from nlproar.model.modes import in_mode
from nlproar.model.recipes import Recipe, advice_if_not_finite
from nlproar.model.training_state import Epoch, Tensors, TrainingState
from nlproar.progress import Bar, stage
from nlproar.seeds import derive

with process.without_rank():
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
        LightningEnvironment,
    )

log = logging.getLogger(__name__)

# The highest value of each metric. Training stops when the monitor has reached it: only an epoch with a higher value
# would be chosen instead.
CEILING = dict.fromkeys(METRICS, 1.0)


@dataclass(frozen=True)
class Training:
    """The course of a training that has ended."""

    parameters: int  # number of parameters of the model
    epochs: list[Epoch]
    best_epoch: int  # counted from 1; 0 for a model that is used as it is
    earlier_epochs: int = 0  # how many of `epochs` were trained by an earlier process

    @property
    def earlier_seconds(self) -> float:
        """The time that earlier processes took for their epochs."""
        return sum(epoch.seconds for epoch in self.epochs[: self.earlier_epochs])

    def as_record(self) -> dict[str, Any]:
        """Return the part of a record that describes the training."""
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

    `recipe` has the number of epochs, the batch size, and the settings of the optimizer. The order of the batches and
    dropout have seeds that are derived from `seed`. The best epoch is the first one with the highest `monitor` on
    `val`. Training stops early when the monitor has reached its ceiling. Raises UserError when the loss is not finite.

    With `mask_at_random` the model also learns to predict masked data (Madsen et al. 2023): in every epoch half of the
    training observations are masked at random, see `RandomlyMaskedBatches`. `monitor` is then measured on `val` and a
    randomly masked copy of `val` together.

    With `tensorboard`, a folder, the loss and the validation metrics of every epoch are written there for TensorBoard.

    With `state`, a path, the state of the training is written there after every epoch. A training that was killed
    continues after its last whole epoch, and its numbers are those of a training that was not interrupted. A state is
    only used if it belongs to the same training: `state_key` (values that JSON can hold) identifies it, together with
    the data, the initial weights, the settings above, the device and the number of threads. The caller holds the lock
    of the run, and removes the state when it is no longer needed.

    During training, SIGTERM, SIGUSR1 and SIGUSR2 end the process with exit code 128 + their number (SystemExit),
    unless the caller has installed a handler for them. The settings of Lightning that come from environment variables
    of a cluster, and its checkpoints in the current folder, are ignored.
    """
    make_deterministic()
    shuffling_seed = derive(seed, "shuffling")
    if mask_at_random:
        batches: TrainingBatches = RandomlyMaskedBatches(train, recipe.batch_size, shuffling_seed)
        masked_val = _masked_copy(val, derive(seed, "masks of validation"))
        val = val.followed_by(masked_val)
    else:
        batches = TrainingBatches(train, recipe.batch_size, shuffling_seed)

    key: dict[str, Any] = {}
    if state is not None:
        key |= state_key or {}
        key |= _settings(recipe, monitor, seed, mask_at_random)
        key |= _origin(model, train, val, device)

    learner = _Learner(model, batches, val, monitor, recipe, state, key)
    if tensorboard is not None:
        learner.curves = _curves(tensorboard)
    return _train(learner, device, dropout_seed=derive(seed, "dropout"))


def as_it_is(model: Classifier) -> Training:
    """Return the course of no training."""
    return Training(_count_parameters(model), epochs=[], best_epoch=0)


def _count_parameters(model: Classifier) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _train(learner: _Learner, device: torch.device, dropout_seed: int) -> Training:
    """Train the epochs that an earlier process has not trained, and leave the model with its best weights."""
    model = learner.model
    earlier_epochs = 0
    with in_mode(model, training=True), _random_numbers(device, dropout_seed):
        if learner.state_path is not None:
            earlier = training_state.read(learner.state_path, learner.state_key)
            if earlier is not None:
                learner.continue_from(earlier)
                earlier_epochs = len(earlier.epochs)
        if not learner.finished:
            _train_epochs(learner, device)
    model.load_state_dict(learner.best_weights)
    model.to(device)  # Lightning leaves it on the CPU
    return Training(_count_parameters(model), learner.epochs, learner.best_epoch, earlier_epochs)


def _train_epochs(learner: _Learner, device: torch.device) -> None:
    """Train the epochs that are left."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # it logs devices and advice
    epochs_left = learner.max_epochs - len(learner.epochs)
    progress = stage("training", epochs_left * len(learner.batches), "steps")
    with progress as bar, warnings.catch_warnings():
        # Lightning warns of data loaders and devices that were chosen on purpose.
        warnings.simplefilter("ignore")
        learner.bar = bar
        trainer = _Trainer(epochs_left, device, learner.recipe.acc_batches)
        try:
            with learner.signals:
                trainer.fit(learner, train_dataloaders=learner.batches)
        except _Signalled as signalled:
            _log_signal(learner, signalled)
            raise
        except SystemExit as error:
            # Lightning turns Ctrl-C into SystemExit. Any other SystemExit is that of a handler of the caller.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            if learner.curves is not None:
                learner.curves.finalize("success")


def _log_signal(learner: _Learner, signalled: _Signalled) -> None:
    """Log that a signal has stopped the training, and whether it can be continued."""
    epoch = len(learner.epochs) + 1
    advice = "" if learner.state_path is None else "; the same command continues there"
    log.info("stopped by %s in epoch %d of %d%s", signalled.name, epoch, learner.max_epochs, advice)


def _settings(recipe: Recipe, monitor: str, seed: int, mask_at_random: bool) -> dict[str, Any]:
    """Return the settings that identify a training. The paths of files are not among the values of a recipe."""
    settings = {"recipe": values_of(recipe), "monitor": monitor, "seed": seed}
    if mask_at_random:
        settings["mask_at_random"] = True
    return settings


def _curves(folder: Path) -> TensorBoardLogger:
    """Return the logger of curves in `folder`. Raises UserError where TensorBoard is not installed."""
    try:
        logger = TensorBoardLogger(folder.parent, name=folder.name, version="")
        _ = logger.experiment  # the first use imports TensorBoard
    except ModuleNotFoundError as error:
        advice = "install it with: pip install -c constraints.txt -e '.[tensorboard]'"
        raise UserError(f"--tensorboard needs another package; {advice}") from error
    return logger


def _masked_copy(split: Split, seed: int) -> Split:
    """Return a copy of `split` in which every observation is masked at random, each to another extent."""
    generator = np.random.default_rng(seed)
    mask = masking.mask_at_random(split.maskable, split.offsets, generator, share=1.0)
    return split.masked(mask)


# Random numbers, and what decides the numbers of a training


@contextmanager
def _random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's generators, which dropout draws from, with `seed`. Afterwards they have their earlier states."""
    earlier_states = _random_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        _set_random_state(earlier_states, device)


def _random_state(device: torch.device) -> Tensors:
    """Return the states of the generators of torch that a training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_state(states: Tensors, device: torch.device) -> None:
    """Put torch's generators into `states`, which `_random_state` returned for the same device."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _origin(model: Classifier, train: Split, val: Split, device: torch.device) -> dict[str, Any]:
    """Return what decides the numbers of a training besides its settings, up to the last bits.

    `train` and `val` are the data that are trained on, masks included. The kind of CPU is not part of this, although it
    may change the last bits: a training can be continued on another machine.
    """
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    device_name = device.type
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    return {
        "initial_weights": training_state.digest(weights),
        "train": training_state.digest(vars(train)),
        "val": training_state.digest(vars(val)),
        "device": device_name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


# Signals


class _Signalled(SystemExit):
    """A signal has asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class _Signals:
    """A context in which the signals `NUMBERS` raise `_Signalled`, unless the caller has a handler for them.

    On exit all handlers are restored. Among them is that of Ctrl-C, which Lightning replaces. Python can set handlers
    only in the main thread; in any other thread this context changes nothing.
    """

    # Batch systems send one of these before the time limit, by default or with --signal.
    NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.earlier_handlers: dict[int, Any] = {}
        self.received: int | None = None
        self.is_postponed = False

    def __enter__(self) -> _Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, *self.NUMBERS):
            self.earlier_handlers[number] = signal.getsignal(number)
        for number in self.NUMBERS:
            if self.earlier_handlers[number] is signal.SIG_DFL:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.earlier_handlers.items():
            # None stands for a handler that was not set by Python. It cannot be set again.
            if handler is not None:
                signal.signal(number, handler)

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Postpone signals to the end of a block that prints: an exception within it would print the line twice."""
        self.is_postponed = True
        try:
            yield
        finally:
            self.is_postponed = False
        if self.received is not None:
            raise _Signalled(self.received)

    def _receive(self, number: int, _: object) -> None:
        """Handle a signal."""
        self.received = number
        if not self.is_postponed:
            raise _Signalled(number)


# Lightning


class _NoSignals:
    """A replacement for Lightning's connector of signals, which installs no handler.

    On Slurm, Lightning's own connector writes a pickle into the current folder and requeues the job at SIGUSR1.
    """

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        pass

    def teardown(self) -> None:
        pass


class _Trainer(pl.Trainer):
    """Lightning's training loop on one device and in one process, whatever the environment is.

    Without this class, Lightning would also read environment variables of Slurm, torchrun, LSF and MPI, and would
    continue from a file hpc_ckpt_*.ckpt in the current folder. It would read PL_TRAINER_* as well; it derives these
    names from the names of the class and of the parameters below.
    """

    def __init__(self, max_epochs: int, device: torch.device, acc_batches: int) -> None:
        devices: list[int] | int = 1
        if device.type == "cuda":
            devices = [device.index or 0]
        super().__init__(
            max_epochs=max_epochs,
            accumulate_grad_batches=acc_batches,
            accelerator=device.type,
            devices=devices,
            plugins=[LightningEnvironment()],
            # Lightning looks for checkpoints in this folder, which does not exist and cannot be made.
            default_root_dir=os.path.join(os.devnull, "nowhere"),
            deterministic="warn",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,  # `_Learner.on_train_epoch_end` validates
        )
        self._signal_connector = _NoSignals()  # type: ignore[assignment]


class _Learner(pl.LightningModule):
    """One training, as Lightning's loop calls it.

    Validation does not use Lightning: at the end of each epoch `test` measures the model on the validation split.
    """

    bar: Bar  # set before the loop starts

    def __init__(
        self,
        model: Classifier,
        batches: TrainingBatches,
        val: Split,
        monitor: str,
        recipe: Recipe,
        state_path: Path | None,
        state_key: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.batches = batches
        self.val = val
        self.monitor = monitor
        self.recipe = recipe
        self.max_epochs = recipe.max_epochs
        self.state_path = state_path
        self.state_key = state_key
        self.signals = _Signals()
        self.curves: TensorBoardLogger | None = None  # shows the loss and metrics of every epoch

        # The course of the training so far.
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights: Tensors = {}
        self.earlier: TrainingState | None = None  # of an earlier process, which is continued
        self.steps_done = 0  # steps of the optimizer, in all epochs
        self.full_rates: list[float] = []  # of each parameter group, before the schedule

    @property
    def steps_per_epoch(self) -> int:
        """How many steps the optimizer takes in an epoch; the last step may add up fewer batches than the others."""
        return math.ceil(len(self.batches) / self.recipe.acc_batches)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is trained, or no later epoch could be better than the best one."""
        if not self.epochs:
            return False
        if len(self.epochs) >= self.max_epochs:
            return True
        return self.epochs[-1].monitor >= CEILING[self.monitor]

    def continue_from(self, state: TrainingState) -> None:
        """Continue after the last epoch of `state`."""
        # `configure_optimizers` and `on_fit_start` use the rest of the state, when there is an optimizer.
        self.earlier = state
        self.epochs = list(state.epochs)
        self.best_epoch = state.best_epoch
        self.best_weights = state.best_weights
        self.batches.state = state.batch_order
        self.model.load_state_dict(state.weights)
        done = len(self.epochs)
        self.steps_done = done * self.steps_per_epoch
        if self.finished:
            message = "trained already: %d of %d epochs are in %s"
            log.info(message, done, self.max_epochs, self.state_path)
        else:
            log.info("continuing at epoch %d of %d", done + 1, self.max_epochs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer. If the training is continued, it gets its earlier moments."""
        optimizer = self.model.optimizer(self.recipe)
        if self.earlier:
            # A training state has no parameter groups, as these are settings: they come from the recipe.
            state = {**optimizer.state_dict(), "state": self.earlier.optimizer}
            optimizer.load_state_dict(state)
        self.full_rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rates of the step that follows."""
        all_steps = self.max_epochs * self.steps_per_epoch
        factor = self.model.schedule(self.recipe, self.steps_done, all_steps)
        for group, full_rate in zip(optimizer.param_groups, self.full_rates, strict=True):
            group["lr"] = full_rate * factor
        self.steps_done += 1

    def on_fit_start(self) -> None:
        """Restore the states of torch's generators, if the training is continued."""
        if self.earlier:
            _set_random_state(self.earlier.random, self.device)

    def on_train_epoch_start(self) -> None:
        """Begin to measure an epoch."""
        self.epoch_started = time.monotonic()
        self.total_loss = torch.zeros((), device=self.device)
        self.observations_seen = 0

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        """Return the loss of a batch, a mean over its observations."""
        logits = self.model(batch).logits
        loss = torch.nn.functional.cross_entropy(logits, batch.label)
        self.total_loss += loss.detach() * len(batch.label)
        self.observations_seen += len(batch.label)
        with self.signals.postponed():
            self.bar.update(1)
        return loss

    def on_train_epoch_end(self) -> None:
        """Validate, keep the weights if they are the best ones so far, and write the state."""
        number = len(self.epochs) + 1
        loss = float(self.total_loss) / self.observations_seen
        if not math.isfinite(loss):
            problem = f"the training loss of epoch {number} is {loss}"
            raise UserError(f"{problem}; {advice_if_not_finite(self.recipe)}")
        val_metrics = test(self.model, self.val)
        monitor = val_metrics[self.monitor]
        seconds = time.monotonic() - self.epoch_started
        # Every metric is above -1, so that the first epoch is the best one so far.
        best_monitor = max((epoch.monitor for epoch in self.epochs), default=-1.0)
        is_best = monitor > best_monitor
        epoch = Epoch(number, loss, monitor, seconds, val_metrics)
        self.epochs.append(epoch)
        self._show_curves(epoch)
        if is_best:
            self.best_epoch = number
            self.best_weights = _copy_of_weights(self.model)
        if self.state_path is not None:
            training_state.write(self.state_path, self.state_key, self._state())
        # The state is on disk before the log says that the epoch is done.
        self._log_epoch(epoch, is_best)
        self.trainer.should_stop = self.finished

    def _show_curves(self, epoch: Epoch) -> None:
        """Write the loss and metrics of an epoch for TensorBoard, if it is used."""
        if self.curves is None:
            return
        values = {"train/loss": epoch.loss}
        for name, value in epoch.val.items():
            values[f"val/{name}"] = value
        self.curves.log_metrics(values, epoch.epoch)
        self.curves.experiment.flush()

    def _log_epoch(self, epoch: Epoch, is_best: bool) -> None:
        """Log the loss and the monitor of an epoch."""
        validation = f"validation {self.monitor} {epoch.monitor:.4f}"
        if is_best:
            validation += " (best)"
        message = "epoch %d/%d: loss %.4f, %s, %.1f s"
        with self.signals.postponed():
            log.info(message, epoch.epoch, self.max_epochs, epoch.loss, validation, epoch.seconds)

    def _state(self) -> TrainingState:
        """Return everything that the next epoch depends on."""
        return TrainingState(
            epochs=self.epochs,
            best_epoch=self.best_epoch,
            weights=self.model.state_dict(),
            best_weights=self.best_weights,
            optimizer=self.trainer.optimizers[0].state_dict()["state"],
            batch_order=self.batches.state,
            random=_random_state(self.device),
        )


def _copy_of_weights(model: Classifier) -> Tensors:
    """Return a copy of the weights and buffers of a model, which later steps do not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# Testing


def predict(model: Classifier, split: Split) -> Tensor:
    """Return the logits (N, C) of every observation of `split`, in its order, on the CPU.

    The model is in evaluation mode meanwhile.
    """
    (logits,) = _of_every_observation(model, split, lambda batch: [model(batch).logits])
    return logits


def activations(model: Classifier, split: Split) -> list[Tensor]:
    """Return what `Classifier.activations` says of every observation of `split`, in its order, on the CPU: (N, D) for
    each layer.

    The model is in evaluation mode meanwhile.
    """
    return _of_every_observation(model, split, model.activations)


def _of_every_observation(
    model: Classifier, split: Split, ask: Callable[[SequenceBatch], list[Tensor]]
) -> list[Tensor]:
    """Return the tensors (N, ...) that the tensors (B, ...) which `ask` returns for each batch make together."""
    device = next(model.parameters()).device
    of_batches: list[list[Tensor]] = []
    order: list[Tensor] = []
    with torch.no_grad(), in_mode(model, training=False):
        for rows, batch in FixedBatches(split, model.evaluation_tokens):
            answers = ask(batch.to(device))
            of_batches.append([answer.cpu() for answer in answers])
            order.append(torch.from_numpy(rows))
    rows_in_order = torch.cat(order)
    found = []
    for parts in zip(*of_batches, strict=True):
        shuffled = torch.cat(parts)
        in_order = torch.empty_like(shuffled)
        in_order[rows_in_order] = shuffled
        found.append(in_order)
    return found


def test(model: Classifier, split: Split) -> dict[str, float]:
    """Return the metrics of `model` on `split`, by name, see `nlproar.metrics.evaluate`."""
    return metrics.evaluate(predict(model, split), torch.from_numpy(split.label))
