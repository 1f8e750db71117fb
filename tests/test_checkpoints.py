"""A study that keeps only the checkpoints it needs has the numbers of one that keeps all, and can go on from them."""

import gzip
import shutil
from pathlib import Path

import pytest

from nlproar import storage
from nlproar.errors import UserError
from nlproar.evaluate.roar import Roar
from nlproar.model import checkpoint
from nlproar.run import importance_table, prerequisites, record
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.study import cli
from nlproar.study.checkpoints import Unneeded
from nlproar.study.grid import Grid
from nlproar.study.status import Status
from tests import made_records
from tests.test_scripts import records
from tests.test_study import finished


def weights_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "checkpoints").rglob("*") if path.is_file()]


def discard(*configs) -> None:
    for config in configs:
        checkpoint.discard(Layout.of(config).checkpoint(config))


def content_of(record) -> dict:
    """What a record says, the checksum of the weights included, without what differs from one making to the next."""
    content = record.as_json()
    for name in ("made", "durations", "environment", "checksum"):
        content.pop(name)
    for epoch in content["training"]["epochs"]:
        epoch.pop("seconds")
    return content


@pytest.fixture
def trainings(monkeypatch):
    """The ids of the runs that were carried out, to which a test adds."""
    found = []
    carry_out = Roar.carry_out

    def noted(self, config, context):
        found.append(config.id)
        return carry_out(self, config, context)

    monkeypatch.setattr(Roar, "carry_out", noted)
    return found


@pytest.fixture
def chain(small_run):
    """The run of k = 0 and two levels of a recursive curve. None is carried out yet."""
    flags = {"importance_measure": "gradient", "recursive": True, "train_missing": True}
    return [small_run(), *(small_run(k=k, **flags) for k in (1, 2))]


def test_a_checkpoint_that_is_half_removed_is_absent_and_the_next_call_removes_the_rest(small_run, monkeypatch):
    config = small_run()
    run(config)
    folder = Layout.of(config).checkpoint(config)
    (weights,) = folder.glob("weights*")
    real = Path.unlink

    def killed_at_weights(path, **flags):
        if path == weights:
            raise KeyboardInterrupt
        real(path, **flags)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed_at_weights)
        checkpoint.discard(folder)
    assert weights.exists() and not checkpoint.exists(folder)
    assert "weights are gone" in prerequisites.lack(Layout.of(config), config)
    with pytest.raises(checkpoint.Absent):
        checkpoint.describe(folder)
    size = weights.stat().st_size
    unneeded = Unneeded(Layout.of(config), [config], [config])
    unneeded.remove_all()
    assert not weights.exists() and (unneeded.removed, unneeded.bytes) == (1, size)
    unneeded.remove_all()
    assert unneeded.removed == 1


def test_weights_are_needed_until_the_last_run_that_looks_at_them_is_done(small_run):
    grid = Grid(["babi-1"], ["gradient", "attention"], levels=[1, 2], strategies=["count"], kinds=[True],
                source="simulated", flags={"persistent_dir": small_run().options.persistent_dir})  # fmt: skip
    base, *curves = grid.chains()
    (unmasked,) = base.configs
    layout = Layout.of(unmasked)
    runs = [config for chain in (base, *curves) for config in chain.configs]
    for config in runs:
        folder = layout.checkpoint(config)
        folder.mkdir(parents=True)
        (folder / checkpoint.DESCRIPTION).write_text("{}")
        (folder / "weights-00000000.safetensors").write_bytes(bytes(10))

    def there():
        return {config for config in runs if checkpoint.is_any_left(layout.checkpoint(config))}

    (first, second), (other_first, other_second) = (chain.configs for chain in curves)
    unneeded = Unneeded(layout, runs, [])
    unneeded.run_is_done(unmasked)
    assert there() == set(runs)
    unneeded.run_is_done(first)
    assert there() == set(runs)  # the other measure explains the unmasked model, too
    unneeded.run_is_done(other_first)
    assert there() == set(runs) - {unmasked}
    unneeded.run_is_done(second)
    assert there() == {other_first, other_second}
    # a run that failed is not done: what it needs stays for the next call, which sees the same on the disk
    Unneeded(layout, runs, [unmasked, first, second, other_first]).remove_all()
    assert there() == {other_first, other_second}
    unneeded.run_is_done(other_second)
    assert not there() and (unneeded.removed, unneeded.bytes) == (5, 50)


def test_weights_of_a_run_that_a_process_is_at_are_removed_later(small_run):
    config = small_run()
    run(config)
    layout = Layout.of(config)
    unneeded = Unneeded(layout, [config], [])
    with storage.lock(layout.record(config)):
        unneeded.run_is_done(config)
        assert checkpoint.exists(layout.checkpoint(config)) and unneeded.locked == [config]
    unneeded.run_is_done(config)
    assert not checkpoint.is_any_left(layout.checkpoint(config)) and not unneeded.locked


@pytest.mark.slow
def test_a_level_trains_none_of_the_deleted_models_below_the_one_that_it_explains(chain, trainings):
    unmasked, first, second = chain
    run(first)
    discard(unmasked)
    trainings.clear()
    run(second)
    assert trainings == [second.id] and not checkpoint.exists(Layout.of(first).checkpoint(unmasked))


@pytest.mark.slow
def test_a_deleted_model_is_trained_again_for_another_measure_only_and_the_numbers_are_the_same(
    chain, small_run, trainings, caplog
):
    unmasked, _, second = chain
    attention = small_run(importance_measure="attention", k=1)
    run(second)
    expected = content_of(run(attention))
    before = [content_of(run(config)) for config in chain]
    discard(*chain, attention)
    trainings.clear()
    # what is done is read, and what is cached is not computed again
    assert [content_of(run(config)) for config in chain] == before
    run(small_run(importance_measure="gradient", k=2))
    assert len(trainings) == 1
    # nothing of the other measure is left
    layout = Layout.of(attention)
    layout.record(attention).unlink()
    for path in layout.cache.glob("importance/attention-*"):
        path.unlink()
    with pytest.raises(UserError, match=r"weights are gone; add --train-missing to train it, or"):
        run(attention)
    assert not list(layout.failure_folder.glob("*.txt"))
    with caplog.at_level("INFO", "nlproar"):
        again = run(small_run(importance_measure="attention", k=1, train_missing=True))
    assert content_of(again) == expected and content_of(run(unmasked)) == before[0]
    assert "training again, as its weights were deleted, 1 of 1" in caplog.text


@pytest.mark.slow
def test_without_cache_and_weights_all_levels_below_are_made_again_with_the_same_numbers(chain, small_run, trainings):
    before = content_of(run(chain[-1]))
    layout = Layout.of(chain[0])
    discard(*chain)
    for folder in ("importance", "masks"):
        shutil.rmtree(layout.cache / folder)
    layout.record(chain[-1]).unlink()
    trainings.clear()
    assert content_of(run(chain[-1])) == before
    assert set(trainings) == {config.id for config in chain}


@pytest.mark.slow
def test_a_table_of_importance_is_written_from_the_cache_or_after_training_the_model_again(chain, small_run):
    unmasked, first, _ = chain
    run(first)
    discard(unmasked)
    table = importance_table.write(small_run(importance_measure="gradient", k=1), ("val", "test"))
    expected = table.read_bytes()
    layout = Layout.of(first)
    shutil.rmtree(layout.cache / "importance")
    with pytest.raises(UserError, match="weights are gone"):
        importance_table.write(small_run(importance_measure="gradient", k=1), ("val", "test"))
    importance_table.write(small_run(importance_measure="gradient", k=1, train_missing=True), ("val", "test"))
    assert without_seconds(table.read_bytes()) == without_seconds(expected)


def without_seconds(table: bytes) -> list[str]:
    """The lines of a table, but for the time that explaining took."""
    return [line.rpartition(",")[0] for line in gzip.decompress(table).decode().splitlines()]


@pytest.mark.slow
def test_a_study_that_keeps_what_is_needed_ends_with_the_same_records_and_no_weights(few_questions, tmp_path):
    every, needed = tmp_path / "every", tmp_path / "needed"
    keep = ("--keep-checkpoints", "needed")
    first = finished(every, few_questions)
    assert first.returncode == 0, first.stderr
    # the two stages are one study: the first leaves what the second explains
    base = finished(needed, few_questions, "--stage", "base", *keep)
    assert base.returncode == 0 and "checkpoints removed: 1 (" in base.stderr, base.stderr
    assert len(weights_in(needed)) == 2  # the weights of k = 0, and their description
    done = finished(needed, few_questions, *keep)
    assert done.returncode == 0 and done.stdout == first.stdout, done.stderr
    assert records(needed) == records(every) and weights_in(every) and not weights_in(needed)
    assert "checkpoints removed: 5 (" in done.stderr and "training again" not in "".join(logs(needed))
    before = logs(needed)
    again = finished(needed, few_questions)
    assert again.returncode == 0 and again.stdout == first.stdout and "6 done, 0 failed" in again.stderr
    assert logs(needed) == before
    # another measure explains k = 0, which is trained again and removed again
    other = ("--importance-measure", "gradient", "--k", 20)
    dry = finished(needed, few_questions, *other, *keep, "--dry-run")
    assert "weights of finished runs that others explain were deleted (1, such as" in dry.stdout
    more = finished(needed, few_questions, *other, *keep)
    assert more.returncode == 0 and "3 runs: 3 done" in more.stderr and not weights_in(needed), more.stderr
    assert finished(every, few_questions, *other).stdout == more.stdout and records(needed) == records(every)


def test_a_stage_that_is_made_again_leaves_what_the_other_stage_explains(small_run):
    """With --overwrite, the runs of the other stage have explained models that are replaced."""
    directory = small_run().options.persistent_dir
    flags = {"persistent_dir": directory, "overwrite": True}
    grid = Grid(["babi-1"], ["gradient"], levels=[1], strategies=["count"], source="simulated", flags=flags)
    base, curve = study = grid.chains()
    (unmasked,), (masked,) = base.configs, curve.configs
    for config in (unmasked, masked):
        made_records.made(config, 0.5)
    layout = Layout.of(unmasked)
    made = {config: record.read(layout.record(config), config) for config in (unmasked, masked)}

    def unneeded(chains, records, again):
        return cli._unneeded(layout, study, chains, Status(records), again)

    for records_of_base in (
        {},
        {unmasked: made[unmasked]},
    ):  # the base is to be made again, or a stopped command did so
        again = unneeded([base], records_of_base, again=True)
        assert masked not in again.done and again.users[unmasked] == {masked}
    assert unneeded([base], {unmasked: made[unmasked]}, again=False).done == {unmasked, masked}
    assert unneeded([curve], {}, again=True).done == {unmasked}


def logs(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "logs").glob("*.log"))]


@pytest.mark.parametrize("flag", ["--list", "--job-lists"])
def test_weights_are_not_removed_for_jobs_that_others_carry_out(flag, tmp_path, capsys):
    words = ["--dataset", "babi-1", "--source", "simulated", flag, "--keep-checkpoints", "needed"]
    with pytest.raises(SystemExit) as ended:
        cli.main("", [*words, "--persistent-dir", str(tmp_path)])
    assert ended.value.code == 2 and "--keep-checkpoints needed does not go with" in capsys.readouterr().err
