"""--overwrite keeps the old record until the new one is there, and goes on where it was stopped."""

import errno
import json
import os
import pathlib
import shutil

import pytest

from nlproar.errors import UserError
from nlproar.model import checkpoint, train
from nlproar.run import overwrite, parent, record
from nlproar.run.layout import Layout
from nlproar.run.prerequisites import lack
from nlproar.run.run import run, run_all


class Killed(BaseException):
    """Stands for a process that ends here."""


def pair(config):
    """The bytes of a record and of its weights."""
    layout = Layout.of(config)
    folder = layout.checkpoint(config)
    return layout.record(config).read_bytes(), (folder / checkpoint.describe(folder)["file"]).read_bytes()


def read(config):
    return record.read(Layout.of(config).record(config), config)


def made(configs):
    return [read(config).made for config in configs]


def levels(small_run, *ks):
    return [small_run(importance_measure="random", k=k, overwrite=True) for k in ks]


def notes(config):
    return list(Layout.of(config).overwrite.glob("*.json"))


def test_overwriting_makes_a_run_again_and_gives_the_same(small_run):
    first = run(small_run())
    again = run(small_run(overwrite=True))
    assert again.metrics == first.metrics and again.sources == first.sources and first.sources["weights"]
    assert again.made != first.made and not notes(small_run())


@pytest.mark.slow
def test_a_mistake_leaves_record_and_weights_as_they_were(small_run, monkeypatch):
    run(small_run())
    before = pair(small_run())
    with pytest.raises(UserError, match="quantum"):
        run(small_run(overwrite=True, device="quantum"))
    assert pair(small_run()) == before

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", full)
        with pytest.raises(OSError, match="No space left"):
            run(small_run(overwrite=True))
    assert pair(small_run()) == before and run(small_run()).metrics


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-(10**6), 10**6])
def test_no_clock_decides_what_is_made_again(small_run, seconds):
    chain = levels(small_run, 1, 2)
    list(run_all(chain))
    before = made(chain)
    for path in Layout.of(chain[0]).root.rglob("*"):  # as if they came from a machine whose clock is wrong
        status = path.stat()
        os.utime(path, (status.st_atime + seconds, status.st_mtime + seconds))
    list(run_all(chain))
    assert all(one != other for one, other in zip(made(chain), before, strict=True))


@pytest.mark.slow
def test_a_stopped_command_goes_on_and_a_finished_one_starts_over(small_run, caplog):
    chain = levels(small_run, 0, 1, 2)
    list(run_all(chain))
    first = made(chain)
    for _ in run_all(chain):  # stopped after its first run
        break
    second = made(chain)
    assert [one == other for one, other in zip(first, second, strict=True)] == [False, True, True]
    with caplog.at_level("INFO", "nlproar"):
        list(run_all(chain))
    assert "continuing: 2 of 3 runs are left to be made again" in caplog.text and not notes(chain[0])
    third = made(chain)
    assert [one == other for one, other in zip(second, third, strict=True)] == [True, False, False]
    list(run_all(chain))
    assert not set(made(chain)) & set(third)


@pytest.mark.slow
def test_the_worker_of_a_study_leaves_the_note_to_its_study(small_run, monkeypatch):
    """Else a study that is killed while its last worker ends would start over, and a level that a worker of the killed
    study still made would be made twice."""
    runs = levels(small_run, 0, 1)
    list(run_all(runs))
    first = made(runs)
    overwrite.begin(Layout.of(runs[0]), runs)
    monkeypatch.setattr(parent, "_watched", [1])
    list(run_all(runs[:1]))
    once = made(runs[:1])
    list(run_all(runs[:1]))
    assert made(runs[:1]) == once
    list(run_all(runs))
    assert made(runs[:1]) == once and notes(runs[0]) and overwrite.begin(Layout.of(runs[0]), runs) == {}
    assert not set(first) & set(made(runs))


def test_what_a_stopped_first_command_made_is_not_made_again(small_run):
    chain = levels(small_run, 0, 1)
    for _ in run_all(chain):  # nothing was there before
        break
    (first,) = made(chain[:1])
    list(run_all(chain))
    assert made(chain)[0] == first


@pytest.mark.slow
def test_a_run_that_the_stopped_command_did_not_have_is_made_again_too(small_run):
    chain = levels(small_run, 0, 1, 2)
    list(run_all(chain))
    before = made(chain)
    for _ in run_all(chain[:2]):
        break
    between = made(chain)
    list(run_all(chain))
    after = made(chain)
    assert after[0] == between[0] != before[0] and after[1] != before[1] and after[2] != before[2]


def test_a_plain_command_reads_what_is_still_to_be_made_again(small_run):
    chain = levels(small_run, 0, 1)
    list(run_all(chain))
    for _ in run_all(chain):
        break
    before = made(chain)
    assert run(small_run(importance_measure="random", k=1)).made == before[1] and len(notes(chain[0])) == 1


def test_of_two_commands_at_once_one_makes_a_run_and_the_other_takes_it(small_run, monkeypatch):
    """The second begins, and reads its notes, while the first is at work on the run that both are to make again."""
    config = small_run(overwrite=True)
    run(config)
    begun, fit = [], train.fit

    def fit_while_another_begins(*args, **kwargs):
        begun.append(overwrite.begin(Layout.of(config), [config]))
        assert len(notes(config)) == 1
        return fit(*args, **kwargs)

    monkeypatch.setattr(train, "fit", fit_while_another_begins)
    new = run(config)
    monkeypatch.setattr(overwrite, "begin", lambda *_: begun[0])
    assert run(config) == new and len(begun) == 1 and begun[0]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace(b"babi", b"BABI"), lambda _: b""])
def test_a_damaged_note_is_named(small_run, damage):
    config = small_run(overwrite=True)
    run(config)
    overwrite.begin(Layout.of(config), [config])
    (path,) = notes(config)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged") as error:
        run(config)
    assert str(path) in str(error.value)
    assert run(small_run())  # a command without the flag does not need it
    path.unlink()
    run(config)


def kill_at(patch, number):
    """From here on the process ends before the file operation of this number: a new file, another name, a removal."""
    left = [number]

    def counted(operation):
        def call(*args, **kwargs):
            if operation is not open_file or args[1] & os.O_EXCL:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return operation(*args, **kwargs)

        return call

    open_file = os.open
    patch.setattr(os, "replace", counted(os.replace))
    patch.setattr(os, "open", counted(os.open))
    patch.setattr(pathlib.Path, "unlink", counted(pathlib.Path.unlink))


@pytest.mark.slow
def test_killed_at_any_file_operation_record_and_weights_belong_together_or_are_made_again(
    small_run, other_weights, monkeypatch, tmp_path
):
    config = small_run(overwrite=True)
    layout = Layout.of(config)
    list(run_all([config]))
    old, kept = read(config), tmp_path / "kept"
    shutil.copytree(layout.root, kept)
    other_weights()
    states = set()
    for number in range(1000):
        shutil.rmtree(layout.root)
        shutil.copytree(kept, layout.root)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            try:
                list(run_all([config]))
                break
            except Killed:
                pass
        found = read(config)
        states.add((found == old, lack(layout, config) is None))
        list(run_all([config]))  # the same command
        new = read(config)
        assert new.made != old.made and lack(layout, config) is None
        assert new.sources["weights"] == checkpoint.sha256(layout.checkpoint(config)) != old.sources["weights"]
        assert found == old or new == found  # what was made before the kill is not made again
        files = [path.name for path in layout.root.rglob("*") if path.is_file()]
        files = sorted(name for name in files if not name.endswith((".lock", ".npz")))
        assert files == sorted(
            [f"{config.id}.json", "checkpoint.json", f"weights-{new.sources['weights'][:8]}.safetensors"]
        )
    assert number >= 10 and states >= {(True, True), (True, False), (False, True)}
    assert (False, False) not in states  # a new record never stands beside other weights than its own


def test_a_note_names_no_text_of_the_data(small_run):
    config = small_run(overwrite=True)
    run(config)
    overwrite.begin(Layout.of(config), [config])
    (path,) = notes(config)
    assert json.loads(path.read_text())["runs"] == {f"roar/{config.id}": record.stamp(Layout.of(config).record(config))}
