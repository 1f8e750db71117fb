"""Training: a killed one continues with the same numbers, and no cluster, folder or foreign signal changes one."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nlproar import storage
from nlproar.dataset import babi_simulation
from nlproar.errors import UserError
from nlproar.model import bilstm_attention, train, training_state
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.model.recipes import BiLSTMRecipe, TransformerRecipe
from nlproar.run import context, record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests.conftest import ROOT, random_split

EPOCHS = 5
VOCABULARY = 30


class Killed(BaseException):
    """Stands for the death of the process."""


def splits(seed=0):
    rng = np.random.default_rng(seed)
    return random_split(rng, 60, 12, VOCABULARY, 3, True), random_split(rng, 20, 12, VOCABULARY, 3, True)


def new_model(dropout=0.5):
    """A small model with dropout, the same one every time."""
    torch.manual_seed(0)
    model = BiLSTMAttention(VOCABULARY, 8, 6, 3, True)
    model.decode = nn.Sequential(nn.Dropout(dropout), model.decode)
    return model


def fit(state=None, model=None, data=None, **changes):
    """Train a new model; returns it and its `Training`."""
    model, (training, validation) = model or new_model(), data or splits()
    recipe = BiLSTMRecipe(max_epochs=EPOCHS, batch_size=8, learning_rate=0.1)  # the monitor rises and falls early
    of_recipe = {name: changes.pop(name) for name in ("max_epochs", "batch_size", "acc_batches") if name in changes}
    flags = {"recipe": replace(recipe, **of_recipe), "monitor": "accuracy", "seed": 8}
    flags |= {"device": torch.device("cpu"), "state": state, "state_key": {"run": "a"}, **changes}
    return model, train.fit(model, training, validation, **flags)


def numbers(trained):
    """All that a training gives but its durations."""
    model, training = trained
    epochs = [(epoch.epoch, epoch.loss, epoch.monitor) for epoch in training.epochs]
    return epochs, training.best_epoch, {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.fixture
def kill(monkeypatch):
    """Arrange that the next training dies at a step, counted from 1, or once the state of an epoch is written."""
    step, write = train._Learner.training_step, training_state.write

    def arrange(at_step=None, after_epoch=None):
        seen = []

        def training_step(learner, *args):
            seen.append(1)
            if len(seen) == at_step:
                raise Killed
            return step(learner, *args)

        def write_state(path, key, state):
            write(path, key, state)
            if len(state.epochs) == after_epoch:
                raise Killed

        monkeypatch.setattr(train._Learner, "training_step", training_step)
        monkeypatch.setattr(training_state, "write", write_state)
        return seen

    return arrange


# A training that is killed


@pytest.mark.slow
@pytest.mark.parametrize("small", [0, 1_000], ids=["written-out", "torch"])
def test_killed_after_any_epoch_a_training_ends_with_the_numbers_of_an_undisturbed_one(
    tmp_path, kill, monkeypatch, small
):
    monkeypatch.setattr(bilstm_attention, "SMALL", small)
    expected = numbers(fit())
    assert 1 < expected[1] < EPOCHS  # else the weights of the best epoch would not matter
    steps_an_epoch = 8
    for epochs in range(1, EPOCHS + 1):
        path = tmp_path / str(epochs) / "training.npz"
        kill(after_epoch=epochs)
        with pytest.raises(Killed):
            fit(path)
        torch.rand(epochs)  # another process has other random numbers
        steps = kill()
        trained = fit(path)
        assert numbers(trained) == expected
        assert len(steps) == (EPOCHS - epochs) * steps_an_epoch
        assert trained[1].earlier_epochs == epochs
        assert trained[1].earlier_seconds == sum(epoch.seconds for epoch in trained[1].epochs[:epochs])


@pytest.mark.slow
def test_killed_in_every_epoch_a_training_ends_with_the_same_numbers(tmp_path, kill, caplog):
    expected = numbers(fit())
    path = tmp_path / "training.npz"
    with caplog.at_level("INFO", "nlproar"):
        for _ in range(EPOCHS - 1):
            kill(at_step=11)  # in the second epoch of this process
            with pytest.raises(Killed):
                fit(path)
        kill()
        assert numbers(fit(path)) == expected
    for epoch in range(2, EPOCHS + 1):
        assert f"continuing at epoch {epoch} of {EPOCHS}" in caplog.text


def linear(_, recipe, step, steps):
    return 1 - step / steps


@pytest.mark.slow
def test_a_schedule_goes_on_where_a_killed_training_was(tmp_path, kill, monkeypatch):
    constant = numbers(fit())
    monkeypatch.setattr(BiLSTMAttention, "schedule", linear)
    expected = numbers(fit(acc_batches=3))  # eight batches an epoch are three steps
    assert expected != constant
    kill(after_epoch=2)
    with pytest.raises(Killed):
        fit(tmp_path / "training.npz", acc_batches=3)
    kill()
    assert numbers(fit(tmp_path / "training.npz", acc_batches=3)) == expected


def test_every_step_has_the_rate_of_the_schedule(monkeypatch):
    asked = []
    monkeypatch.setattr(BiLSTMAttention, "schedule", lambda model, recipe, *step: asked.append(step) or 1.0)
    fit(acc_batches=3, max_epochs=2)
    assert asked == [(step, 6) for step in range(6)]


def test_batches_that_are_added_up_are_one_larger_batch():
    data = splits()
    together = [fit(model=new_model(0), data=data, batch_size=60, max_epochs=3, acc_batches=1)]
    together.append(fit(model=new_model(0), data=data, batch_size=30, max_epochs=3, acc_batches=2))
    one, two = [model.state_dict() for model, _ in together]
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-4), name


@pytest.mark.slow
def test_killed_while_the_state_is_written_the_state_before_is_used(tmp_path, kill, monkeypatch):
    expected = numbers(fit())
    path = tmp_path / "training.npz"
    kill(after_epoch=2)
    with pytest.raises(Killed):
        fit(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
        kill()
        with pytest.raises(Killed):
            fit(path)
    assert path.read_bytes() == before
    assert numbers(fit(path)) == expected


def test_a_training_that_reached_the_ceiling_of_its_monitor_is_not_continued(tmp_path, kill, monkeypatch):
    first = fit()[1].epochs[0].monitor
    monkeypatch.setitem(train.CEILING, "accuracy", first)
    path = tmp_path / "training.npz"
    expected = numbers(fit(path))
    assert len(expected[0]) == 1
    steps = kill()
    assert numbers(fit(path)) == expected and not steps


def test_the_best_weights_are_in_the_state_only_where_they_are_not_the_last_ones(tmp_path, monkeypatch):
    monitors = iter([0.5, 0.6, 0.4])
    monkeypatch.setattr(train.metrics, "evaluate", lambda *_: {"accuracy": next(monitors)})
    found, write = [], training_state.write

    def write_and_look(path, key, state):
        write(path, key, state)
        arrays, _ = storage.stored(path)
        best = {name.removeprefix("best."): value for name, value in arrays.items() if name.startswith("best.")}
        found.append(best)

    monkeypatch.setattr(training_state, "write", write_and_look)
    model, training = fit(tmp_path / "training.npz", max_epochs=3)
    assert training.best_epoch == 2
    assert not found[0] and not found[1]
    assert {name: value.tolist() for name, value in found[2].items()} == numbers((model, training))[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: b"",
        lambda content: content[:3000] + bytes([content[3000] ^ 255]) + content[3001:],
        lambda content: b"not arrays",
    ],
)
def test_a_damaged_state_is_named_and_training_starts_over(tmp_path, kill, caplog, damage):
    expected = numbers(fit())
    path = tmp_path / "training.npz"
    kill(after_epoch=2)
    with pytest.raises(Killed):
        fit(path)
    path.write_bytes(damage(path.read_bytes()))
    kill()
    trained = fit(path)
    assert numbers(trained) == expected and trained[1].earlier_epochs == 0
    assert str(path) in caplog.text and "damaged" in caplog.text


@pytest.mark.slow
def test_arrays_that_are_no_state_are_named_and_training_starts_over(tmp_path, caplog):
    path = tmp_path / "training.npz"
    fit(path)
    arrays, key = storage.stored(path)
    for missing in ("progress", "random.cpu"):
        storage.write_arrays(path, key, {name: value for name, value in arrays.items() if name != missing})
        assert fit(path)[1].earlier_epochs == 0
    assert caplog.text.count("holds no state of this training") == 2


def other_data(split):
    tokens = split.tokens.copy()
    tokens[1] = 3 + (tokens[1] + 1) % 20
    return replace(split, tokens=tokens)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train", lambda: {"data": (other_data(splits()[0]), splits()[1])}),
        ("val", lambda: {"data": (splits()[0], other_data(splits()[1]))}),
        ("run", lambda: {"state_key": {"run": "b"}}),
        ("recipe", lambda: {"max_epochs": 4}),
        ("recipe", lambda: {"batch_size": 9}),
        ("seed", lambda: {"seed": 9}),
    ],
)
def test_a_state_of_another_training_is_not_continued(tmp_path, caplog, name, change):
    path = tmp_path / "training.npz"
    fit(path)
    trained = fit(path, **change())
    assert trained[1].earlier_epochs == 0 and numbers(trained) == numbers(fit(**change()))
    assert f"another training (different: {name})" in caplog.text and str(path) in caplog.text


@pytest.mark.slow
def test_a_state_from_other_weights_or_threads_is_not_continued(tmp_path, caplog, monkeypatch):
    path = tmp_path / "training.npz"
    fit(path)
    other = new_model()
    with torch.no_grad():
        other.embedding.weight[5, 5] += 1  # as if the vectors had been replaced
    assert fit(path, other)[1].earlier_epochs == 0
    assert "different: initial_weights)" in caplog.text
    fit(path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert fit(path)[1].earlier_epochs == 0
    assert "different: threads)" in caplog.text


@pytest.mark.slow
def test_training_neither_uses_nor_changes_the_random_numbers_of_its_process():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = numbers(fit(model=(model := new_model())))
    torch.manual_seed(5)
    second = numbers(fit(model=(again := new_model())))
    assert first == second and model is not again
    before = torch.get_rng_state()
    fit(model=model)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


# Runs


def comparable(content):
    """A record without what differs from one making of a run to the next."""
    found = json.loads(json.dumps(content.as_json()))
    for name in ("durations", "environment", "made", "checksum"):
        del found[name]
    for epoch in found["training"]["epochs"]:
        del epoch["seconds"]
    return found


@pytest.mark.slow
def test_a_run_killed_between_training_and_record_is_only_tested_and_leaves_no_state(small_run, kill, monkeypatch):
    config = small_run(max_epochs=2)
    layout = Layout.of(config)
    write, moments = record.write, []
    undisturbed = run(small_run(max_epochs=2, persistent_dir=config.options.persistent_dir + "2"))

    def killed(*args):
        moments.append(layout.training_state(config).exists())
        raise Killed

    monkeypatch.setattr(record, "write", killed)
    with pytest.raises(Killed):
        run(config)
    monkeypatch.setattr(record, "write", write)
    steps = kill()
    content = run(config)
    assert not steps and moments == [True]
    assert comparable(content) == comparable(undisturbed)
    assert content.durations["train"] > 0.9 * sum(epoch["seconds"] for epoch in content.training["epochs"])
    assert not layout.training_state(config).exists()


def test_a_state_that_was_left_beside_its_record_is_removed(small_run):
    config = small_run()
    run(config)
    layout = Layout.of(config)
    path = layout.training_state(config)
    path.write_bytes(b"left by a process that was killed")
    os.utime(path, (0, 0))  # before the record was written
    with storage.lock(layout.record(config)):  # another process is at work
        run(config)
        assert path.exists()
    run(config)
    assert not path.exists()


@pytest.mark.slow
def test_a_state_that_was_left_beside_the_record_of_the_model_below_is_removed(small_run):
    config = small_run()
    run(config)
    left = Layout.of(config).training_state(config)
    left.write_bytes(b"left by a process that was killed")
    os.utime(left, (0, 0))  # before the record was written
    run(small_run(k=1, importance_measure="gradient"))
    assert not left.exists()


def test_the_state_of_a_model_that_was_being_trained_again_is_kept(small_run):
    """It is newer than the record: weights that were deleted were being made again when the process was killed."""
    config = small_run()
    run(config)
    path = Layout.of(config).training_state(config)
    path.write_bytes(b"the epochs so far")
    run(config)
    assert path.exists()


def epochs_in(log):
    return [int(line.split()[1].split("/")[0]) for line in log if line.startswith("epoch ")]


@pytest.mark.slow
def test_a_process_killed_and_stopped_in_turn_ends_with_the_same_record(few_questions, tmp_path, monkeypatch):
    """Two processes end by a signal each, in a folder with Lightning's files and as if on Slurm; the third ends by
    itself. No epoch is trained twice, nothing is written into the folder, and nothing is requeued."""
    here, tools = tmp_path / "here", tmp_path / "tools"
    here.mkdir()
    tools.mkdir()
    scontrol = tools / "scontrol"
    scontrol.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    scontrol.chmod(0o755)
    planted = plant(here)
    flags = ("--source", "simulated", "--max-epochs", 20, "--device", "cpu", "--persistent-dir", tmp_path / "p")
    command = [sys.executable, str(ROOT / "experiments/babi.py"), *map(str, flags)]
    environment = {**few_questions, **CLUSTERS["slurm"], "SLURM_NTASKS": "1", "PATH": f"{tools}:{os.environ['PATH']}"}
    environment |= {"RANK": "none", "LOCAL_RANK": "", "PYTHONPATH": f"{few_questions['PYTHONPATH']}:{ROOT}"}
    epochs = []
    for number, code in ((signal.SIGKILL, -9), (signal.SIGUSR1, 138)):
        process = subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.PIPE, text=True)
        log = []
        for line in process.stderr:
            log.append(line)
            if line.startswith("epoch ") and len(epochs_in(log)) == 3:
                process.send_signal(number)
        assert process.wait(timeout=30) == code and "Traceback" not in "".join(log), log
        epochs += epochs_in(log)
    assert log[-1].startswith("stopped by SIGUSR1 in epoch ") and log[-1].endswith("the same command continues there\n")
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    epochs += epochs_in(done.stderr.splitlines())
    assert len(epochs) == len(set(epochs)) and set(range(1, 21)) - set(epochs) <= {min(epochs_in(log)) - 1}
    assert sorted(here.iterdir()) == planted and not (tmp_path / "called").exists()
    assert not list((tmp_path / "p").rglob("*.tmp")) and not list((tmp_path / "p").rglob("training.npz"))
    (path,) = (tmp_path / "p/results/roar").glob("*.json")
    monkeypatch.undo()
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 400, "test": 100})
    undisturbed = run(resolve("babi-1", "simulated", max_epochs=20, device="cpu", persistent_dir=str(tmp_path / "q")))
    assert comparable(record.load(path)) == comparable(undisturbed)


# Lightning, clusters and signals


CLUSTERS = {
    "slurm": {
        "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1234", "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3", "SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "node[1-2]",
    },
    "sbatch": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"},
    "salloc": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive", "SLURM_JOB_ID": "1234"},
    "torchrun": {
        "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "29400", "TORCHELASTIC_RUN_ID": "run",
    },
    "lsf": {
        "LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "rankfile", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4",
        "JSM_NAMESPACE_RANK": "2",
    },
    "mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMI_RANK": "2", "PMI_SIZE": "4"},
    "lightning": {
        "PL_TRAINER_MAX_STEPS": "1", "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1", "PL_TRAINER_GRADIENT_CLIP_VAL": "0.001",
        "PL_TRAINER_FAST_DEV_RUN": "True", "PL_TRAINER_NUM_NODES": "3", "PL_TRAINER_ACCUMULATE_GRAD_BATCHES": "4",
    },
}  # fmt: skip
QUICK = ("slurm", "torchrun", "lightning")  # clusters that the fast tests have


def plant(folder):
    """Files in `folder` that Lightning would continue from; returns all that is there."""
    checkpoint = {"state_dict": {}, "pytorch-lightning_version": "2.0.0", "epoch": 7, "global_step": 99, "loops": {}}
    torch.save(checkpoint, folder / "hpc_ckpt_1.ckpt")
    torch.save(checkpoint, folder / "last.ckpt")
    (folder / "lightning_logs" / "version_0" / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "cluster", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CLUSTERS]
)
def test_variables_of_a_cluster_and_files_in_the_current_folder_change_nothing(cluster, tmp_path, monkeypatch):
    expected = numbers(fit())
    planted = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    if cluster == "lsf":
        (tmp_path / "rankfile").write_text("launch\nnode1\nnode2\n")
        planted = sorted(tmp_path.iterdir())
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert numbers(fit(tmp_path / "state" / "training.npz")) == expected
    assert sorted(tmp_path.iterdir()) == sorted([*planted, tmp_path / "state"])
    assert os.environ == before


def at_the_first_step(monkeypatch, action):
    """Let `action` happen in the first step of the next training."""
    step, actions = train._Learner.training_step, [action]

    def training_step(learner, *args):
        if actions:
            actions.pop()()
        return step(learner, *args)

    monkeypatch.setattr(train._Learner, "training_step", training_step)


def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_end_raises_systemexit_and_leaves_no_handler(number, monkeypatch, caplog):
    before = handlers()
    at_the_first_step(monkeypatch, lambda: signal.raise_signal(number))
    with caplog.at_level("INFO", "nlproar"), pytest.raises(SystemExit) as ended:
        fit()
    assert ended.value.code == 128 + number
    assert f"stopped by {number.name} in epoch 1 of {EPOCHS}" in caplog.text
    assert handlers() == before


def test_ctrl_c_raises_keyboardinterrupt_and_the_next_one_does_too(monkeypatch):
    before = handlers()
    at_the_first_step(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert handlers() == before


def test_handlers_of_the_caller_are_called_and_stay_and_others_are_never_set(monkeypatch):
    expected = numbers(fit())
    received, during = [], []
    numbers_of_signals = (signal.SIGTERM, signal.SIGUSR1)

    def handler(number, _):
        received.append(number)

    def action():
        during.append(handlers())
        for number in numbers_of_signals:
            signal.raise_signal(number)

    replaced = {number: signal.signal(number, handler) for number in numbers_of_signals}
    before = handlers()
    try:
        at_the_first_step(monkeypatch, action)
        assert numbers(fit()) == expected  # a signal that the caller handles does not end the training
        assert handlers() == before and received == list(numbers_of_signals)
        changed = {number for number, found in during[0].items() if found != before[number]}
        assert changed == {signal.SIGUSR2}
    finally:
        for number, previous in replaced.items():
            signal.signal(number, previous)


def test_a_training_in_another_thread_sets_no_handler():
    expected = numbers(fit())
    before, found = handlers(), []
    thread = threading.Thread(target=lambda: found.append(numbers(fit())))
    thread.start()
    thread.join()
    assert found == [expected] and handlers() == before


# Modes


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("recipe", [BiLSTMRecipe, TransformerRecipe])
def test_a_loss_that_is_not_finite_is_refused_with_advice_that_suits_the_model(recipe):
    model = new_model()
    nn.init.constant_(model.decode[1].weight, torch.nan)
    with pytest.raises(UserError, match=r"training loss of epoch 1 is nan; .*--learning-rate") as error:
        fit(model=model, recipe=recipe(max_epochs=1, batch_size=8, learning_rate=0.1))
    assert ("vectors" in str(error.value)) == (recipe is BiLSTMRecipe)


def test_the_advice_for_a_metric_that_is_not_finite_suits_the_model():
    recipes = {"--learning-rate, or .*vectors": BiLSTMRecipe(), "--learning-rate$": TransformerRecipe()}
    recipes |= {"check the weights of the model$": TransformerRecipe(as_is=True)}
    for advice, recipe in recipes.items():
        with pytest.raises(UserError, match=f"test cross_entropy is nan; .*{advice}"):
            context._check_finite({"test": {"cross_entropy": math.nan}}, recipe)


@pytest.mark.slow
def test_training_uses_dropout_and_predicting_does_not():
    with_dropout, without = fit(), fit(model=new_model(dropout=0.0))
    assert with_dropout[1].epochs[0].loss != without[1].epochs[0].loss
    model, (_, split) = new_model(), splits()
    first = train.predict(model, split)
    assert torch.equal(train.predict(model, split), first)
    assert torch.equal(first, train.predict(new_model(dropout=0.0), split))
    assert train.test(model, split) == train.test(model, split)


def test_a_model_in_evaluation_mode_is_trained_with_dropout_too():
    assert numbers(fit(model=new_model().eval())) == numbers(fit())


def mixed_modes(model):
    """Some submodules in training mode and some not."""
    for number, module in enumerate(model.modules()):
        module.training = number % 3 > 0
    return modes(model)


def test_predicting_and_training_leave_every_submodule_in_the_mode_it_had(monkeypatch):
    model, (_, split) = new_model(), splits()
    before = mixed_modes(model)
    train.predict(model, split)
    assert modes(model) == before
    fit(model=model)
    assert modes(model) == before

    def fail(*_):
        raise Killed

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(Killed):
        train.predict(model, split)
    assert modes(model) == before
    with pytest.raises(Killed):
        fit(model=model)
    assert modes(model) == before


def test_tensorboard_gets_the_loss_and_the_metrics_of_every_epoch_that_the_record_has(small_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small_run(max_epochs=2, tensorboard=True)
    done = run(config)
    events = EventAccumulator(str(Layout.of(config).tensorboard(config)))
    events.Reload()
    epochs = done.training["epochs"]
    assert [epoch["val"]["accuracy"] for epoch in epochs] == [epoch["monitor"] for epoch in epochs]
    for name in ("accuracy", "macro_f1", "cross_entropy"):
        shown = [(event.step, event.value) for event in events.Scalars(f"val/{name}")]
        assert shown == [(epoch["epoch"], pytest.approx(epoch["val"][name])) for epoch in epochs]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([e["loss"] for e in epochs])
    assert run(small_run(max_epochs=2)) == done  # it is no part of the identity


def test_where_tensorboard_is_not_installed_the_extra_is_named(small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # that an import of it fails
    with pytest.raises(UserError, match=r"--tensorboard .*pip install -c constraints.txt -e '\.\[tensorboard\]'"):
        run(small_run(tensorboard=True))


@pytest.mark.slow
def test_without_the_flag_no_curves_are_written_and_their_package_is_not_imported(few_questions, tmp_path):
    code = (
        "import sys, nlproar\n"
        "config = nlproar.resolve('babi-1', 'simulated', max_epochs=1, persistent_dir='p', device='cpu')\n"
        "nlproar.run_experiment(config)\n"
        "assert 'torch' in sys.modules\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'tensorboard']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=few_questions, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "p" / "tensorboard").exists()
