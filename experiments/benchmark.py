"""Time nlproar beside the same work done as the published code does it (experiments/baseline/), and print ratios.

Both sides get the same generated data and weights, in one process, in turns; the table shows medians over the rounds.
Before anything is timed, both must have computed the same numbers. Samples are small: times are for what a stage
names, not for a whole data set.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.errors import UserError
    from nlproar.flags import check_range
    from nlproar.paths import user_path
    from nlproar.script import Parser, exit_codes
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from baseline.world import World
    from torch import Tensor

SHAPES = ("sst", "imdb", "babi-1", "mimic")
MEASURES = ("attention", "gradient", "input-times-gradient", "integrated-gradient", "mutual-information")
FEWER = "integrated-gradient-10"  # 10 points, more accurate than the baseline's 50, instead of the default
CAPTUM = "integrated-gradient-captum"  # beside Captum's on the same model, instead of the published code
STAGES = ("epoch", *MEASURES, FEWER, CAPTUM, "mask", "read", "step", "help")
PERCENT = 10  # of the tokens are masked
TOGETHER = 8  # observations of one length in small samples, as in a whole data set many share a width
MOST_ROUNDS = 1000
MOST_OBSERVATIONS = 10**6
ROBERTA = "roberta-base"
PARTS = ("train", "test", "explain")  # of a run with a transformer
OF_MODEL = ("raw", "part", "observations", "explained")  # flags of --model
LONG = 5.0  # seconds: a round that takes longer is not repeated


def parse() -> argparse.Namespace:
    """The flags. Raises UserError where they contradict each other."""
    parser = Parser(__doc__)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=SHAPES, help="kinds of data (default: all)")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES, help="what to time (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side has its turn (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu counts the time of this process alone (default: wall)")  # fmt: skip
    parser.add_argument("--scaling", action="store_true", help="time and memory against the size of the data instead")
    parser.add_argument("--model", help="a transformer beside transformers' own way instead: tiny, a folder, or"
                        f" {ROBERTA} with random weights, of which the cost on this device is measured")  # fmt: skip
    parser.add_argument(
        "--raw", metavar="FOLDER", help="with --model: raw files, for texts of SST (default: generated)"
    )
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, help="with --model: what to time (default: all)"
    )
    parser.add_argument("--observations", type=int, default=640, help="with --model: of training (default: 640)")
    parser.add_argument("--explained", type=int, default=32, help="with --model: to be explained (default: 32)")
    parser.add_argument("--json", metavar="FILE", default=argparse.SUPPRESS, help="write every number there")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/speed.md has it")
    flags = parser.parse_args()
    check_range("--rounds", flags.rounds, 1, MOST_ROUNDS)
    check_range("--observations", flags.observations, 1, MOST_OBSERVATIONS)
    check_range("--explained", flags.explained, 1, MOST_OBSERVATIONS)

    def refuse(names: tuple[str, ...], why: str) -> None:
        for name in names:
            if getattr(flags, name) != parser.get_default(name):
                raise UserError(f"--{name} does not go {why}")

    if flags.scaling:
        refuse(("shape", "stage", "rounds", "device", "clock", "markdown"),
               "with --scaling, which always measures the same on the CPU")  # fmt: skip
    if flags.model is None:
        refuse(OF_MODEL, "without --model")
    else:
        refuse(("shape", "stage", "markdown", "scaling"), "with --model, which has stages of its own")
    if flags.model == ROBERTA:
        refuse(OF_MODEL, f"with --model {ROBERTA}, of which steps of random tokens are timed")
    if flags.raw is not None:
        flags.raw = Path(user_path("--raw", flags.raw))
        if not flags.raw.is_dir():
            raise UserError(f"--raw {flags.raw}: there is no such folder; name one with the raw files of SST")
    flags.named = flags.stage is not STAGES  # and not the default
    flags.shape = list(dict.fromkeys(flags.shape))
    flags.stage = list(dict.fromkeys(flags.stage))
    flags.json = place_of_json(flags.json) if hasattr(flags, "json") else None
    return flags


def place_of_json(text: str) -> Path:
    """Where the numbers will be written. Raises UserError now, and not after minutes, if that cannot be."""
    path = Path(user_path("--json", text))
    if path.is_dir():
        raise UserError(f"--json {path}: this is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"--json {path}: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--json {path}: you may not write there; name another file")
    return path


Pair = tuple[Callable[[], Any], Callable[[], Any], str]  # the baseline, ours, what one call does


def check(world: World) -> float:
    """The largest relative difference of logits and of gradients of all weights; fails above 1e-3."""
    import numpy as np
    import torch
    from baseline import published

    from nlproar.dataset.batch import make_batch

    split = world.split(min(8, world.shape.epoch // 2))
    ours, theirs = world.ours.requires_grad_(True), world.theirs
    batch = make_batch(split, np.arange(len(split))).to(world.device)
    rows = next(published.batches(published.observations(split), 8, world.device))
    logits = (ours(batch).logits, theirs(rows)[0])
    norms = []  # of the gradient of all weights together
    for model, found in zip((ours, theirs), logits, strict=True):
        model.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(found, batch.label))
        each = [gradient_of(parameter).double().norm() for parameter in model.parameters()]
        norms.append(torch.stack(each).norm())
    embeddings = (gradient_of(ours.embedding.weight), gradient_of(theirs.encoder.embedding.weight))
    recurrent = (
        gradient_of(ours.encoder.backward_lstm.get_parameter("weight_hh_l0")),
        gradient_of(theirs.encoder.rnn.get_parameter("weight_hh_l0_reverse")),
    )
    worst = 0.0
    for a, b in (logits, norms, embeddings, recurrent):
        worst = max(worst, float(((a - b).norm() / b.norm()).detach()))
    for measure in MEASURES[1:3]:
        values = published.explain(measure, theirs, published.observations(split), 8, world.device)
        worst = max(worst, difference(world.explain(measure, split), values))
    assert worst < 1e-3, f"{world.shape.title}: the two sides differ by {worst}"
    for model in (ours, theirs):
        model.zero_grad()
    return worst


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient of a weight, which has one."""
    assert parameter.grad is not None
    return parameter.grad


def difference(values: Any, rows: Any) -> float:
    """How far `values` are from the rows of the other side, one after the other, relative to these."""
    import numpy as np

    expected = np.concatenate([np.asarray(row) for row in rows])
    return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))


def training(world: World) -> Pair:
    """An epoch of training, and validation."""
    from baseline import published

    train, val = world.split(world.shape.epoch), world.split(-(-world.shape.epoch // 10), TOGETHER)
    rows, val_rows = published.observations(train), published.observations(val)

    def theirs() -> None:
        world.reset()
        published.train(world.theirs, rows, val_rows, world.shape.batch, world.device)

    def ours() -> None:
        world.reset()
        world.fit(world.ours, train, val, 1)

    return theirs, ours, f"one epoch of {len(train)} observations, {len(val)} for validation"


def explaining(measure: str, samples: int | None = None) -> Callable[[World], Pair]:
    """The stage that explains observations by a measure, with `samples` points if these are named."""

    def stage(world: World) -> Pair:
        from baseline import published

        shape = world.shape
        n = {"integrated-gradient": shape.integrated, "mutual-information": shape.masked}.get(measure, shape.explained)
        # four lengths, so that batches are as full as in a whole data set; the points of a path fill them anyway
        split = world.split(n, 1 if measure == "integrated-gradient" else max(1, n // 4))
        rows = published.observations(split)
        note = f"{n} observations"
        if measure == "mutual-information":
            return lambda: information(world, rows), lambda: world.explain(measure, split), note
        if measure == "integrated-gradient":
            note += ", " + errors(world, split, rows, samples)
        theirs = lambda: published.explain(measure, world.theirs, rows, min(shape.batch, n), world.device)  # noqa: E731
        return theirs, lambda: world.explain(measure, split, samples), note

    return stage


def beside_captum(world: World) -> Pair:
    """The integrated gradient of our model by Captum, and by ours to its tolerance."""
    from baseline import peers

    from nlproar.explain.importance import TOKENS_PER_BATCH

    split = world.split(world.shape.integrated)
    tokens = TOKENS_PER_BATCH[world.device.type]
    exact = world.explain("integrated-gradient", split, 200)

    def theirs() -> Any:
        return peers.integrated_gradient(world.ours, split, tokens).values

    def ours() -> Any:
        return world.explain("integrated-gradient", split)

    errors = difference(ours(), [exact]), difference(theirs(), [exact])
    return theirs, ours, f"{len(split)} observations, error {errors[0]:.0e}, of Captum {errors[1]:.0e}"


def information(world: World, rows: Any) -> Any:
    """The mutual information of each token of each row, as the baseline calculates it."""
    from baseline import published

    values = published.mutual_information(rows, world.shape.vocabulary, world.shape.classes)
    return [values[row["tokens"].numpy()] for row in rows]


def errors(world: World, split: Any, rows: Any, samples: int | None) -> str:
    """How far both integrated gradients are from one with 200 points."""
    from baseline import published

    exact = world.explain("integrated-gradient", split, 200)
    ours = f"error {difference(exact, [world.explain('integrated-gradient', split, samples)]):.0e}"
    if samples:  # the baseline's stands a line above
        return ours
    theirs = published.explain("integrated-gradient", world.theirs, rows, world.shape.batch, world.device)
    return f"{ours}, of the baseline {difference(exact, theirs):.0e}"


def storing(read: bool) -> Callable[[World], Pair]:
    """The stage that masks observations and writes them, or the one that reads them again."""

    def stage(world: World) -> Pair:
        import numpy as np
        import torch
        from baseline import published

        from nlproar import masking, storage

        split = world.split(world.shape.masked)
        rows = published.observations(split)
        flat = world.rng.random(len(split.tokens), dtype=np.float32)
        values = [torch.from_numpy(flat[a:b]) for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
        folder = Path(tempfile.mkdtemp())
        at_theirs, at_ours = folder / "theirs", folder / "ours.npz"

        def make() -> storage.Arrays:
            masked = masking.mask_most_important(flat, split.maskable, split.offsets, "quantile", PERCENT)
            return {"train": masking.pack(masked)}

        def cached() -> Any:
            return storage.cached(at_ours, {"k": PERCENT}, make)

        def ours() -> Any:
            at_ours.unlink(missing_ok=True)
            return cached()

        def again() -> Any:
            return split.masked(masking.unpack(cached()["train"], len(split.tokens)))

        def theirs() -> None:
            published.write(at_theirs, published.mask(rows, values, PERCENT))

        theirs()
        ours()
        expected = np.concatenate([row["tokens"].numpy() for row in published.read(at_theirs)])
        assert (again().tokens == expected).all()
        size = published.pickled_size(rows, values, PERCENT), at_ours.stat().st_size
        note = f"{len(split)} observations, {size[0]:,} and {size[1]:,} bytes: {size[0] / size[1]:.0f} times"
        return (lambda: published.read(at_theirs), again, note) if read else (theirs, ours, note)

    return stage


def recursive_step(world: World) -> Pair:
    """Explain every split, mask, write, read, train eight epochs, test."""
    import torch
    from baseline import published

    from nlproar import masking, storage
    from nlproar.model.bilstm_attention import BiLSTMAttention
    from nlproar.model.train import test

    shape, n = world.shape, world.shape.step
    splits = {name: world.split(n // part, TOGETHER) for name, part in (("train", 1), ("val", 4), ("test", 4))}
    rows = {name: published.observations(split) for name, split in splits.items()}
    size = (shape.vocabulary, shape.embedding, shape.hidden, shape.classes, shape.paired)
    folder = Path(tempfile.mkdtemp())

    def theirs() -> None:
        masked = {}
        for name, one in rows.items():
            values = published.explain("gradient", world.theirs, one, shape.batch, world.device)
            published.write(folder / name, published.mask(one, values, PERCENT))
            masked[name] = published.read(folder / name)
        model = published.Model(*size).to(world.device)
        published.train(model, masked["train"], masked["val"], shape.batch, world.device, epochs=8)
        published.test(model, masked["test"], shape.batch, world.device)

    def ours() -> None:
        dataset = world.dataset(**splits)

        def make() -> storage.Arrays:
            values = world.explain_all("gradient", dataset)
            return {
                name: masking.pack(
                    masking.mask_most_important(values[name], one.maskable, one.offsets, "quantile", PERCENT)
                )
                for name, one in splits.items()
            }

        (folder / "ours.npz").unlink(missing_ok=True)
        packed = storage.cached(folder / "ours.npz", {}, make)
        masked = dataset.masked({k: masking.unpack(packed[k], len(s.tokens)) for k, s in splits.items()})
        torch.manual_seed(0)
        model = BiLSTMAttention(*size).to(world.device)
        world.fit(model, masked.splits["train"], masked.splits["val"], 8)
        test(model, masked.splits["test"])

    return theirs, ours, f"{n} / {n // 4} / {n // 4} observations by gradient, 8 epochs"


def start_up(_: World) -> Pair:
    """A new process that shows the help of a script."""
    import subprocess

    here = Path(__file__).parent

    def call(script: str) -> Callable[[], Any]:
        command = [sys.executable, str(here / script), "--help"]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    return call("baseline/published.py"), call("imdb.py"), "until the help is there"


STAGE: dict[str, Callable[[World], Pair]] = {
    "epoch": training,
    **{measure: explaining(measure) for measure in MEASURES},
    FEWER: explaining("integrated-gradient", 10),
    CAPTUM: beside_captum,
    "mask": storing(read=False),
    "read": storing(read=True),
    "step": recursive_step,
    "help": start_up,
}


def time_pair(
    pair: Pair, rounds: int, clock: str, device: Any, longest: float = LONG
) -> tuple[list[float], list[float]]:
    """Seconds of each call of both sides, in turns. A round that takes longer than `longest` is the last one."""
    import torch

    from nlproar.process import keep_freed_memory

    now = time.perf_counter if clock == "wall" else time.process_time
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side in (0, 1):
            keep_freed_memory(side == 1)  # the published code leaves both as they are
            (gc.freeze if side == 1 else gc.unfreeze)()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            started = now()
            call = pair[0] if side == 0 else pair[1]
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[side].append(now() - started)
        if seconds[0][-1] > longest:
            break
    return seconds


def main() -> None:
    """What the command line does."""
    with exit_codes("interrupted; nothing is written"):
        flags = parse()
        show(flags)


def show(flags: argparse.Namespace) -> None:
    """Time what the flags ask for, and print it."""
    from nlproar import process

    process.prepare()
    import torch

    from nlproar.model.device import choose_device

    device = choose_device(flags.device)
    if device.type != "cpu" and flags.clock == "cpu":
        raise UserError(f"--clock cpu does not count what --device {flags.device} does; use --clock wall")
    pairs = {} if flags.model else what_is_timed(flags)
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}, {flags.clock} time")
    if flags.scaling:
        from baseline import scaling

        results = scaling.run()
    elif flags.model == ROBERTA:
        from baseline import roberta

        results = roberta.run(device, flags.rounds, flags.clock)
    elif flags.model:
        results = beside_transformers(flags, device)
    else:
        results = compare(flags, pairs, device)
        if flags.markdown:
            print(markdown(results))
    if flags.json:
        flags.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


def beside_transformers(flags: argparse.Namespace, device: Any) -> list[dict[str, Any]]:
    """Both sides of every stage of a transformer."""
    from baseline import transformers_stages
    from baseline.encoders import Encoders

    with tempfile.TemporaryDirectory() as folder:
        world = Encoders(flags.model, flags.raw, Path(folder), flags.observations, flags.explained, device)
        time_both = partial(time_pair, rounds=flags.rounds, clock=flags.clock, device=device, longest=math.inf)
        return transformers_stages.compare(world, flags.part, time_both)


def what_is_timed(flags: argparse.Namespace) -> dict[str, list[str]]:
    """The stages of each shape that is named. Not every shape has every stage; raises UserError for a stage that the
    user has named and no shape has."""
    from baseline.world import SHAPE

    def has(name: str, stage: str) -> bool:
        shape = SHAPE[name]
        if stage == "help":  # it knows no data, and is timed once
            return bool(name == flags.shape[0])
        sizes = {
            "step": shape.step,
            "integrated-gradient": shape.integrated,
            FEWER: shape.integrated,
            CAPTUM: shape.integrated,
        }
        return bool(sizes.get(stage, True))

    for stage in flags.stage if flags.named else ():
        if not any(has(name, stage) for name in flags.shape):
            there = ", ".join(name for name in SHAPES if has(name, stage))
            raise UserError(f"--stage {stage} is not timed for --shape {' '.join(flags.shape)}, only for {there}")
    timed = {name: [stage for stage in flags.stage if has(name, stage)] for name in flags.shape}
    return {name: stages for name, stages in timed.items() if stages}


def compare(flags: argparse.Namespace, pairs: dict[str, list[str]], device: Any) -> list[dict[str, Any]]:
    """Both sides, for each shape and its stages, and the limit of each shape."""
    from baseline.limit import limit
    from baseline.world import SHAPE, World

    started = time.monotonic()
    results: list[dict[str, Any]] = []
    for name, stages in pairs.items():
        world = World(SHAPE[name], device)
        print(f"\n{world.shape.title}: the two sides agree within {check(world):.0e}", flush=True)
        for stage in stages:
            world.reset()
            pair = STAGE[stage](world)
            theirs, ours = time_pair(pair, flags.rounds, "wall" if stage == "help" else flags.clock, device)
            result = {"shape": name, "stage": stage, "baseline_s": theirs, "ours_s": ours, "note": pair[2]}
            results.append({**result, "ratio": median(theirs) / median(ours)})
            print(
                f"{stage:22} {1000 * median(theirs):10.1f} ms {1000 * median(ours):9.1f} ms"
                f" {results[-1]['ratio']:8.1f}x  {pair[2]}", flush=True,
            )  # fmt: skip
            if stage == "epoch" and device.type == "cpu":
                results[-1]["limit"] = limit(world)
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return results


def machine() -> str:
    """What this machine is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unnamed processor'}"


def markdown(results: list[dict[str, Any]]) -> str:
    """The ratios as a table, a column for each shape."""
    from baseline.world import SHAPE

    shapes = list(dict.fromkeys(one["shape"] for one in results))
    lines = [
        "| stage | " + " | ".join(SHAPE[shape].title for shape in shapes) + " |",
        "| --- |" + " --- |" * len(shapes),
    ]
    for stage in dict.fromkeys(one["stage"] for one in results):
        found = {one["shape"]: one["ratio"] for one in results if one["stage"] == stage}
        lines.append(f"| {stage} | " + " | ".join(f"{found[s]:.1f}x" if s in found else "" for s in shapes) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
