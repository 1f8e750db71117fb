"""A study is a set of runs: which, in which chains, and what is left of them."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlproar.dataset import PLANTED, TASKS, load_task
from nlproar.errors import UserError
from nlproar.evaluate import EVALUATIONS
from nlproar.explain import MEASURES as REGISTERED
from nlproar.model import MODELS
from nlproar.run import cli, failure, importance_table, overwrite, record
from nlproar.run.config import command_line, resolve
from nlproar.run.layout import Layout
from nlproar.study import cli as study
from nlproar.study import job_lists, workers
from nlproar.study.checkpoints import Unneeded
from nlproar.study.grid import Grid
from nlproar.study.scheduler import Scheduler
from nlproar.study.status import Estimates, duration, kind_of, kinds_of, look, time_left
from nlproar.study.workers import Worker
from tests.conftest import ROOT
from tests.made_records import made
from tests.test_config import runs_of_words

MEASURES = [  # "all" of them, for the usual model
    name for name, measure in REGISTERED.items() if measure.role == "measure" and name not in MODELS["rnn"].lacks
]

SMALL = Grid(["babi-1"], ["random", "gradient"], levels=[1, 2], strategies=["count"], kinds=[True], source="simulated")


@st.composite
def studies(draw):
    def some(values):
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=4, unique=True))

    return Grid(
        datasets=some(list(TASKS)),
        measures=some(list(MEASURES)),
        seeds=some([0, 1, 7]),
        strategies=some(["count", "quantile"]),
        kinds=some([False, True]),
        levels=draw(st.none() | st.just(some([0, 10, 20, 40, 100]))),
    )


def runs(chains):
    return [config for chain in chains for config in chain.configs]


@pytest.mark.slow
def test_the_grid_of_the_paper_has_as_many_runs_as_counted_by_hand():
    tasks = [task for task in TASKS if task not in PLANTED]
    published = [name for name, measure in REGISTERED.items() if measure.published]
    chains = Grid(tasks, published, range(5), ("count", "quantile"), (False, True)).chains()
    tasks_and_seeds = 8 * 5
    base = 1 + 1  # k = 0, and k = 100 %
    random = 10 + 9  # count 1..10, quantile 10..90; recursion would change nothing
    explained = 6 * 2 * (10 + 9)  # the other measures, ROAR and recursive
    assert len(runs(chains)) == tasks_and_seeds * (base + random + explained) == 9960
    assert len(chains) == tasks_and_seeds * (1 + 2 + 6 * 2 * 2)


@pytest.mark.slow
@given(studies())
def test_no_run_is_in_two_chains_and_all_a_run_needs_is_there_before_it(study):
    chains = study.chains()
    everything = runs(chains)
    place = {config.id: number for number, config in enumerate(everything)}
    assert len(place) == len(everything)
    for config in everything:
        for needed in config.needs():
            assert place[needed.id] < place[config.id]
    assert all(needed in everything for chain in chains for needed in chain.needs)


@pytest.mark.slow
@given(studies())
def test_a_chain_is_one_curve_with_rising_levels(study):
    for chain in study.chains():
        assert all(low.at_level < high.at_level for low, high in pairwise(chain.configs))
        of_the_curve = [(c.dataset, c.seed, c.importance_measure, c.parameters.recursive) for c in chain.configs]
        assert len(set(of_the_curve)) == 1


@pytest.mark.slow
@settings(max_examples=20)  # a study has many chains
@given(studies())
def test_the_command_of_a_chain_is_its_runs(study):
    for chain in study.chains():
        asked = runs_of_words(shlex.split(command_line(chain.arguments(chain.configs))))
        assert [config.id for config in asked] == [config.id for config in chain.configs]


def test_a_recursive_chain_passes_through_every_level_below():
    def levels(**flags):
        (chain,) = [c for c in Grid(["sst"], ["gradient"], kinds=[True], **flags).chains() if c.stage == "measures"]
        passed = {0, *(config.at_level for config in chain.configs)}
        assert all(needed.at_level in passed for config in chain.configs for needed in config.needs())
        return [config.at_level for config in chain.configs]

    assert levels(levels=[20, 40, 60, 80]) == [20, 40, 60, 80]
    assert levels(levels=[40, 60]) == [20, 40, 60]
    assert levels(levels=[40], flags={"recursive_step_size": 20}) == [20, 40]
    assert levels(step=30, max_k=95) == [30, 60, 90]
    assert levels(levels=[30, 60, 90, 100]) == [30, 60, 90]  # nothing recurses to the run with everything masked
    assert levels() == list(range(10, 100, 10))


def names_in(text, registry):
    return set(re.findall("[a-z-]+", text)) & set(registry)


def test_the_help_names_every_measure_and_metric_that_all_may_leave_out():
    lacks = set(MODELS["rnn"].lacks)
    measures = study._chosen_measures(["all"], ["sst"], "rnn")
    assert names_in(study._all_measures_in_words(), REGISTERED) == set(REGISTERED) - set(measures) - lacks
    metrics = study._all_metrics(["sst"], "rnn", as_is=True)
    assert names_in(study._all_metrics_in_words(), EVALUATIONS) == set(EVALUATIONS) - set(metrics)


@pytest.mark.parametrize("main", [cli.main_of_any_task, importance_table.main, study.main])
def test_the_help_names_every_source_and_the_tasks_that_have_it(main, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")  # so that a help is one line
    with pytest.raises(SystemExit):
        main("", ["--help"])
    help_of_source = capsys.readouterr().out.partition("  --source")[2].partition("\n")[0]
    for name in TASKS:
        for source in load_task(name).sources:
            assert source == "official" or re.search(rf"{source} \(only [^)]*\b{name}\b", help_of_source)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "sst", "--source", "simulated"], "no source 'simulated'"),
        (["--k", "110"], "--k 110"),
        (["--jobs", "0"], "--jobs 0"),
        (["--step", "0"], "--step 0"),
        (["--step", "20", "--max-k", "10"], "--max-k 10"),
        (["--k", "10", "--max-k", "50"], "use either --k or --max-k, not both"),
        (["--recursive", "--k", "15", "--recursive-step-size", "10"], "--k 15"),
        (["--recursive", "--k", "10", "20", "--recursive-step-size", "20"], "--k 10"),
        (["--max-k", "1000000000"], "--max-k 1000000000"),
        (["--max-k", "9" * 30], "--max-k 999"),
        (["--max-k", "1000000", "--step", "1", "--roar-strategy", "count"], "1,000,000 levels"),
        (["--k", "1", "900000", "--recursive", "--roar-strategy", "count"], "900,000 levels"),
        (["--k", *map(str, range(2000)), "--roar-strategy", "count"], "2,000 levels"),
        (["--k", "-5", "3", "--recursive"], "--k -5"),
        (["--jobs", "100000"], "--jobs 100000"),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_name(flags, words):
    with pytest.raises(UserError, match=words):
        study.parse("", flags)[0].chains()


def test_every_flag_of_a_run_reaches_the_runs_of_a_study():
    flags = ["--max-epochs", "3", "--batch-size", "7", "--vectors", "random", "--device", "cpu", "--overwrite"]
    for config in runs(study.parse("", ["--dataset", "sst", *flags])[0].chains()):
        recipe, options = config.recipe, config.options
        assert (recipe.max_epochs, recipe.batch_size, recipe.vectors) == (3, 7, "random")
        assert (options.device, options.overwrite) == ("cpu", True)


def finish(layout, config, seconds=10.0):
    """Leave what a done run leaves, as far as a study looks at it."""
    layout.make()
    here = replace(config, options=replace(config.options, persistent_dir=str(layout.root)))
    return made(here, 0.5, durations={"train": seconds})


def test_the_state_of_every_run_comes_from_the_disk(tmp_path):
    layout, chains = Layout(tmp_path), SMALL.chains()
    base, random, gradient = (list(chain.configs) for chain in chains)
    assert set(look(layout, chains).states(chains).values()) == {"ready", "waiting"}
    finish(layout, base[0])
    finish(layout, random[0])
    failure.note(layout, gradient[0], "no reason")
    assert look(layout, chains).states(chains) == {
        base[0]: "done", random[0]: "done", random[1]: "ready", gradient[0]: "failed", gradient[1]: "waiting",
    }  # fmt: skip
    finish(layout, gradient[0])
    layout.record(random[0]).write_text("{")
    found = look(layout, chains)
    assert found.states(chains)[gradient[1]] == "ready" and "damaged" in found.failures[random[0]]
    before = {overwrite.name(config): record.stamp(layout.record(config)) for config in runs(chains)}
    assert look(layout, chains, before).records == {}
    again = finish(layout, base[0])
    assert look(layout, chains, before).records == {base[0]: again}


@pytest.mark.parametrize("seconds", [-(10**6), 10**6])
def test_a_worker_has_not_done_a_run_that_has_the_record_to_be_replaced_whatever_the_clock_says(tmp_path, seconds):
    """Else the runs that wait for it would explain the old model."""
    layout, (chain, *_) = Layout(tmp_path), SMALL.chains()
    (config,) = chain.configs
    finish(layout, config)
    path = layout.record(config)
    replaces = {overwrite.name(config): record.stamp(path)}
    worker = Worker(chain, [config], None, tmp_path / "log")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + seconds))
    assert workers.new_records(layout, worker, replaces) == [] and worker.todo == [config]
    again = finish(layout, config)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))
    assert workers.new_records(layout, worker, replaces) == [(config, again)] and worker.todo == []


def test_the_time_left_is_estimated_from_runs_alike(tmp_path):
    layout = Layout(tmp_path)
    base, random, gradient = SMALL.chains()
    found = Estimates([finish(layout, base.configs[0], 10.0), finish(layout, random.configs[0], 40.0)])
    assert found.of(kind_of(random.configs[1].values)) == 40.0 and found.of(kind_of(gradient.configs[0].values)) == 25.0
    assert found.of(kind_of(resolve("sst").values)) is None
    assert time_left(found, kinds_of(random.configs), 2) == "40 s"
    assert time_left(found, kinds_of([resolve("sst")]), 1) == "unknown"
    assert time_left(found, kinds_of([*random.configs, resolve("sst")]), 1).endswith("1 runs of unknown length")
    assert [duration(s) for s in (5, 70, 3600, 5400)] == ["5 s", "1 min", "1 h 00 min", "1 h 30 min"]


@pytest.mark.slow
def test_a_dry_run_counts_every_run_and_loads_no_torch(tmp_path):
    code = (
        "import sys\nfrom nlproar.study import cli as study\n"
        "study.main('', ['--seed', '0', '1', '2', '3', '4', '--roar-strategy', 'count', 'quantile', '--both',"
        f"'--dry-run', '--persistent-dir', {str(tmp_path)!r}])\n"
        "heavy = {'torch', 'spacy', 'pytorch_lightning', 'scipy', 'pandas'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *_, total = done.stdout.splitlines()
    assert total.split() == ["all", "0", "2360", "7600", "0", "9960", "unknown"]


def test_the_list_holds_one_command_for_each_chain_with_what_it_lacks(tmp_path, capsys):
    layout, chains = Layout(tmp_path), SMALL.chains()
    for config in (chains[0].configs[0], chains[2].configs[0]):
        finish(layout, config)
    flags = ["--dataset", "babi-1", "--source", "simulated", "--importance-measure", "random", "gradient"]
    flags += ["--k", "1", "2", "--roar-strategy", "count", "--recursive", "--persistent-dir", str(tmp_path)]
    study.main("", [*flags, "--list"])
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines] == [["nlproar", "run", "--dataset", "babi-1"]] * 2
    asked = [[config.id for config in runs_of_words(line)] for line in lines]
    assert asked == [[c.id for c in chains[1].configs], [chains[2].configs[1].id]]


def test_a_dry_run_says_which_records_cannot_be_used_and_why(tmp_path, capsys):
    layout, chains = Layout(tmp_path), SMALL.chains()
    base, random, gradient = (list(chain.configs) for chain in chains)
    for config in (base[0], random[0], random[1], gradient[0]):
        finish(layout, config)
    layout.record(random[0]).write_text("{")
    layout.record(random[1]).write_bytes(layout.record(gradient[0]).read_bytes())  # copied under another name
    flags = ["--dataset", "babi-1", "--source", "simulated", "--importance-measure", "random", "gradient"]
    flags += ["--k", "1", "2", "--roar-strategy", "count", "--recursive", "--persistent-dir", str(tmp_path)]
    study.main("", [*flags, "--dry-run"])
    said = capsys.readouterr()
    damaged, other, *_, total = said.out.splitlines()
    assert total.split()[:6] == ["all", "2", "1", "0", "2", "5"]
    assert random[0].id in damaged and str(layout.record(random[0])) in damaged and "damaged" in damaged
    assert random[1].id in other and f'another run, "{gradient[0].id}"' in other


def test_commands_of_a_study_that_overwrites_overwrite(tmp_path, capsys):
    layout, chains = Layout(tmp_path), SMALL.chains()
    for config in runs(chains):
        finish(layout, config)
    flags = ["--dataset", "babi-1", "--source", "simulated", "--importance-measure", "random", "gradient"]
    flags += ["--k", "1", "2", "--roar-strategy", "count", "--recursive", "--persistent-dir", str(tmp_path)]
    study.main("", [*flags, "--list"])
    assert capsys.readouterr().out == ""
    study.main("", [*flags, "--list", "--overwrite"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("--overwrite" in shlex.split(line) for line in lines)
    assert not layout.overwrite.exists()


def test_job_lists_leave_out_what_is_done_or_queued_and_wait_for_the_rest(tmp_path):
    layout = Layout(tmp_path)
    grid = Grid(["babi-1"], ["random", "gradient"], [0, 1], strategies=["count"], levels=[1, 2], source="simulated")
    chains = grid.chains()
    gradient = [chain for chain in chains if chain.configs[0].importance_measure == "gradient"]
    base, ready, waiting = job_lists.plan(chains, look(layout, chains), {})
    assert [len(found.chains) for found in (base, ready, waiting)] == [2, 2, 2]
    assert (base.waits, ready.waits, waiting.waits) == ("no", "no", "aftercorr") and waiting.chains == tuple(gradient)

    for line in job_lists.write(layout, [base], look(layout, chains)):
        file, submitted = line.split("\t")[2], line.split("\t")[6]
    with open(submitted, "w") as out:
        out.write(f"17\t{file}\t0\n18\tgone\t0\n")
    queued = job_lists.in_queue(layout, ["17 1", "18 0", "99 0", "17 N/A", ""])
    assert queued == {job_lists.name(base.chains[1]): "17"}
    again, _, waits = job_lists.plan(chains, look(layout, chains), queued)
    assert again.chains == base.chains[:1] and (waits.waits, waits.after) == ("afterok", ("17",))

    finish(layout, base.chains[0].configs[0])
    only, ready, waits = job_lists.plan(chains, look(layout, chains), {})
    assert only.chains == base.chains[1:] and gradient[0] in ready.chains and waits.chains == (gradient[1],)
    for config in runs(chains):
        finish(layout, config)
    assert job_lists.plan(chains, look(layout, chains), {}) == []


def queued_lists(layout, chains, job="17"):
    """Write the lists of these chains as if they were submitted, each as one array, and return what is queued."""
    elements = []
    for number, line in enumerate(
        job_lists.write(layout, job_lists.plan(chains, look(layout, chains), {}), look(layout, chains))
    ):
        cells = line.split("\t")
        with open(cells[6], "a") as out:
            out.write(f"{job}{number}\t{cells[2]}\t0\n")
        elements += [f"{job}{number} {index}" for index in range(int(cells[3]))]
    return job_lists.in_queue(layout, elements)


def test_a_chain_with_other_levels_or_with_overwrite_is_another_one_than_the_queued(tmp_path):
    def chains(**changes):
        return Grid(["sst"], ["random", "gradient"], **{"step": 30, **changes}).chains()

    queued = queued_lists(Layout(tmp_path), chains())

    def submitted(own):
        lists = job_lists.plan(own, look(Layout(tmp_path), own), queued)
        return {chain.configs[0].importance_measure for one in lists for chain in one.chains}

    assert submitted(chains()) == set()
    assert submitted(chains(step=10)) == {"random", "gradient"}  # both end with k = 90, too
    assert submitted(chains(flags={"overwrite": True})) == {None, "random", "gradient"}


def test_measures_of_a_command_of_their_own_wait_for_base_jobs_in_the_queue(tmp_path):
    layout = Layout(tmp_path)
    chains = Grid(["sst"], ["random", "gradient"]).chains()
    base = [chain for chain in chains if chain.stage == "base"]
    measures = [chain for chain in chains if chain.stage == "measures"]
    queued = queued_lists(layout, base)
    ready, waiting = job_lists.plan(measures, look(layout, measures), queued, chains)
    assert [chain.configs[0].importance_measure for chain in ready.chains] == ["random"]
    assert (waiting.waits, waiting.after) == ("afterok", ("170",))
    for chain in base:  # a base that is queued to be made again is awaited, too
        for config in chain.configs:
            finish(layout, config)
    again = job_lists.plan(measures, look(layout, measures), queued, chains)
    assert again[-1].after == ("170",)


def test_sbatch_is_called_for_every_list_in_pieces_of_the_largest_array(tmp_path):
    flags = ["babi-1", "babi-2", "--source", "simulated", "--seed", "0", "1", "2", "--importance-measure", "gradient"]
    env = {"SBATCH": "echo", "NLPROAR_MAX_ARRAY_SIZE": "2", "NLPROAR_ACCOUNT": "ours", "NLPROAR_THROTTLE": "1"}
    script = ["bash", "batch_jobs/roar_recursive.sh", *flags, "--persistent-dir", str(tmp_path)]
    path = f"{sys.prefix}/bin:/usr/bin:/bin"
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env={**env, "PATH": path})
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2 * 2 * 2, done.stderr
    for task in ("babi-1", "babi-2"):
        base, rest, first, second = (line for line in lines if f"--job-name=nlproar-{task}-" in line)
        assert "--array=0-1%1" in base and "--array=0-0%1" in rest and "--account=ours" in base
        assert f"--dependency=aftercorr:JOB-OF-{task}-base-0 " in first and "--array=0-1%1" in first
        assert f"--dependency=aftercorr:JOB-OF-{task}-base-2 " in second and second.endswith(" 2")
        assert all("--time=" in line and "--requeue" in line and "--signal=B:TERM" in line for line in (base, first))


def test_a_dry_run_names_what_failed_and_why(tmp_path, capsys):
    layout, chains = Layout(tmp_path), SMALL.chains()
    for config in runs(chains):
        finish(layout, config)
    damaged, failed = chains[1].configs
    layout.record(damaged).write_text("{")
    layout.record(failed).unlink()
    failure.note(layout, failed, "the disk is full")
    flags = [
        "--dataset",
        "babi-1",
        "--source",
        "simulated",
        "--importance-measure",
        "random",
        "gradient",
        "--recursive",
    ]
    flags += ["--roar-strategy", "count", "--k", "1", "2", "--dry-run", "--persistent-dir", str(tmp_path)]
    study.main("", flags)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"failed: {damaged.id}: ") and "is damaged" in lines[0]
    assert lines[1] == f"failed: {failed.id}: the disk is full"
    assert lines[-1].split()[:6] == ["all", "3", "0", "0", "2", "5"]


def test_every_task_and_stage_has_a_time_limit():
    lines = [line.split() for line in (ROOT / "batch_jobs" / "time_limits.txt").read_text().splitlines()]
    limits = {(line[0], line[1]) for line in lines if line[0] != "#"}
    assert limits == {(task, stage) for task in TASKS for stage in ("base", "measures")}


def test_failures_of_bugs_keep_no_text_of_the_data(tmp_path):
    layout, config = Layout(tmp_path), resolve("mimic-anemia")
    failure.note(layout, config, ValueError("the patient said"))
    assert "patient" not in failure.of(layout, config) and "ValueError" in failure.of(layout, config)
    assert layout.failure(config).stat().st_mode & 0o077 == 0
    failure.clear(layout, config)
    assert failure.of(layout, config) is None and json.dumps(config.identity)


@pytest.mark.parametrize(
    ("words", "absent"), [([], "attention-rollout"), (["--model", "tiny"], "attention-times-gradient")]
)
def test_all_measures_are_those_that_explain_the_model(words, absent):
    grid, _ = study.parse("a study", ["--dataset", "sst", "--importance-measure", "all", *words])
    others = {"attention-rollout", "attention-times-gradient"} - {absent}
    assert absent not in grid.measures and others < set(grid.measures)


def metrics_and_measures(*words):
    grid, _ = study.parse("", ["--dataset", "planted-keyword", *words])
    assert grid.chains()
    return set(grid.evaluations), set(grid.measures)


def test_a_metric_that_is_named_beside_all_is_there():
    metrics, _ = metrics_and_measures("--metric", "all", "model-randomisation", "normalised-erasure")
    assert {"model-randomisation", "normalised-erasure", "truth", "erasure"} <= metrics


def test_all_of_a_planted_task_know_the_truth_only_where_the_model_reads_its_words():
    of_words = metrics_and_measures("--metric", "all", "--importance-measure", "all")
    of_subwords = metrics_and_measures("--metric", "all", "--importance-measure", "all", "--model", "tiny")
    assert of_words[0] - of_subwords[0] == {"truth"}
    assert {"oracle", "oracle-inverse"} <= of_words[1] and not {"oracle", "oracle-inverse"} & of_subwords[1]
    assert "position" in of_subwords[1]


@pytest.mark.parametrize("words", ["--importance-measure random --k 15", "--importance-measure gradient --k 100"])
def test_what_does_not_recurse_is_at_no_distance(words):
    """Random masking, and the run with everything masked, do not depend on the level before."""
    flags = [*words.split(), "--recursive", "--recursive-step-size", "30", "--roar-strategy", "quantile"]
    (config,) = cli.parse("", "sst", flags)
    assert not config.parameters.recursive


@pytest.mark.parametrize(
    ("words", "kinds"),
    [((), (True,)), (("--recursive",), (True,)), (("--no-recursive",), (False,)), (("--both",), (False, True))],
)
def test_what_metrics_cost_is_asked_with_and_without_recursion(words, kinds):
    script = runpy.run_path(str(ROOT / "experiments" / "metric_cost.py"))
    grid, _ = study.parse("", script["study_arguments"](["--dataset", "sst", *words]))
    assert grid.kinds == kinds and grid.evaluations == ["masked-fine-tuning", "roar"]


def test_chains_of_one_seed_do_not_follow_one_another(tmp_path):
    """They may need the same importance, for which all but one of them would wait."""
    grid = Grid(["sst"], ["gradient", "attention"], range(3), evaluations=["normalised-erasure"])
    layout = Layout(tmp_path)
    chains = grid.chains()
    scheduler = Scheduler(layout, chains, look(layout, chains), jobs=2)
    assert set(scheduler.waiting) == set(chains)
    order = [(chain.stage, chain.configs[0].seed) for chain in scheduler.waiting]
    assert order == [*(("base", seed) for seed in range(3)), *(("measures", seed) for seed in (0, 1, 2, 0, 1, 2))]


class Refusal:
    """The process of a worker that ends at its first run, as the record of that run is of no use."""

    returncode = None

    def poll(self):
        self.returncode, before = 2, self.returncode
        return before  # the first look at it comes before its end


def test_a_record_of_other_data_is_not_done_and_the_models_it_explains_stay(tmp_path, monkeypatch):
    grid = Grid(["sst"], ["random"], levels=[10, 20], flags={"persistent_dir": str(tmp_path), "vectors": "random"})
    base, curve = grid.chains()
    layout = Layout(tmp_path)
    for config in base.configs:
        made(config, 0.8, "new data")
        folder = layout.checkpoint(config)
        folder.mkdir(parents=True)
        (folder / "checkpoint.json").write_text("{}")
    made(curve.configs[0], 0.7, "old data")

    def start(layout, chain, todo, threads):
        log = layout.log(chain.configs[-1])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"error: {todo[0].id} was made from other data\n")
        return Worker(chain, list(todo), Refusal(), log)

    monkeypatch.setattr(workers, "start", start)
    status = look(layout, [base, curve])
    assert list(status.failures) == [curve.configs[0]]
    unneeded = Unneeded(layout, [*base.configs, *curve.configs], status.records)
    scheduler = Scheduler(layout, [base, curve], status, 1, unneeded)
    scheduler.carry_out()
    assert set(status.records) == set(base.configs)
    assert status.failures == {curve.configs[0]: f"{curve.configs[0].id} was made from other data"}
    assert scheduler.skipped == list(curve.configs[1:])
    unmasked = base.configs[0]  # which the whole curve explains
    assert (layout.checkpoint(unmasked) / "checkpoint.json").exists()
