"""Importance as a table: a row for every token of a data set, written as it is made.

`nlproar importance` writes it, and so does `experiments/compute_importance_measure.py`, under its published name.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar import plugins, process, storage
from nlproar.dataset import TASKS
from nlproar.dataset.encoding import Split
from nlproar.dataset.task import SPLITS
from nlproar.dataset.vocabulary import SPECIALS, Vocabulary
from nlproar.errors import UserError
from nlproar.evaluate import load_evaluation
from nlproar.evaluate.roar import usual_step
from nlproar.paths import user_path
from nlproar.progress import show_log, stage
from nlproar.published import DATASETS, in_our_words
from nlproar.run.cli import add_source, parser, runs_of
from nlproar.run.config import DEFAULT_EVALUATION, Config
from nlproar.run.layout import Layout
from nlproar.script import exit_codes

if TYPE_CHECKING:
    from nlproar.explain.importance import SplitImportance
    from nlproar.run.context import Context

log = logging.getLogger(__name__)

COLUMNS = ("split", "observation", "position", "token", "importance", "seconds")

_TOKENS_AT_ONCE = 100_000  # whose rows are made at a time, which takes about 20 MB


def main(description: str, argv: list[str] | None = None) -> None:
    """Write the table that a command line asks for. Exits with 0 when it is there, else as `exit_codes` says."""
    with exit_codes("interrupted; no table was written, and whole splits that were explained are cached"):
        config, splits, out, show_texts = _parse(description, argv)
        show_log()
        process.prepare(config.options.threads)
        path = write(config, splits, out, show_texts)
        print(f"importance: {path}", flush=True)


def _parse(description: str, argv: list[str] | None) -> tuple[Config, Sequence[str] | None, Path | None, bool]:
    """Return the run that a command line asks for, the splits, where the table is written (both None for the usual
    ones), and whether a confidential task may be shown."""
    words = in_our_words(argv)
    plugins.load_named(words)
    found = parser(description, None, ())
    add = found.add_argument
    names = [*TASKS, *DATASETS]  # the published names are understood, too
    add("--dataset", default="sst", choices=names, metavar="TASK", help=f"{', '.join(TASKS)} (default: sst)")
    add_source(found)
    add("--split", nargs="+", choices=SPLITS, help="which splits (default: all that the metric explains)")
    add("--out", metavar="FILE", help="where the table is written (default: in results/importance_measure)")
    add("--show-texts", action="store_true", help="write a table of a confidential task, which holds its texts")
    flags = vars(found.parse_args(words))
    splits = flags.pop("split")
    named = flags.pop("out")
    out = None if named is None else Path(user_path("--out", named))
    show_texts = flags.pop("show_texts")
    if flags.get("overwrite"):
        raise UserError("--overwrite makes runs again, and this command writes a table; use it with nlproar run")
    dataset = flags.pop("dataset")
    if flags.get("as_is", False):
        flags.setdefault("evaluation", "erasure")  # which explains the model without training another one
    if load_evaluation(flags.get("evaluation", DEFAULT_EVALUATION)).level == "k":
        # A run of k = 0 explains nothing. The importance of the first level is that of the unmasked model.
        first_level = flags.get("recursive_step_size") or usual_step(flags.get("roar_strategy"))
        flags.setdefault("k", [first_level])
    configs = runs_of(DATASETS.get(dataset, dataset), flags)
    if len(configs) != 1:
        raise UserError("the table is that of one run; name one level, as each may have an importance of its own")
    return configs[0], splits, out, show_texts


def write(
    config: Config, splits: Sequence[str] | None = None, out: Path | None = None, show_texts: bool = False
) -> Path:
    """Write the importance that a run computes, and return the path of the table.

    The table is a CSV file, compressed if its name ends in `.gz`. It has a row for every token that can be masked, in
    the order of the text. Its columns are `COLUMNS`: the split, and those of `columns`. By default it has all splits
    that the metric of the run explains, and its place is `Layout.importance_table`.

    Raises UserError if the model that is explained is not trained and `train_missing` is not set, if the run explains
    nothing, or not one of the splits, and if the task is confidential and `show_texts` is false, as the table holds the
    texts. The table of a confidential task can be read by its owner only.
    """
    from nlproar.run.context import Context
    from nlproar.run.run import with_models

    layout = Layout.of(config)
    confidential = config.task.confidential
    if confidential and not show_texts:
        raise UserError(f"the table holds the texts of {config.task.title}, which are confidential; add --show-texts")
    path = out or layout.importance_table(config)
    with storage.owner_only(confidential):
        layout.make()
        context = Context(config, layout)
        with_models(config, context, partial(_write, config, context, splits, path))
    return path


def _write(config: Config, context: Context, splits: Sequence[str] | None, path: Path) -> None:
    """Write the table, see `write`, once the models that are explained are there."""
    importance = config.rules.importance(config, context)
    if importance is None:
        raise UserError(f"{config.id} explains nothing; choose an --importance-measure and a level --k above 0")
    names = importance.chosen(splits)
    dataset = context.dataset
    with storage.whole_file(path) as file:
        if config.task.confidential:
            os.fchmod(file.fileno(), 0o600)
        target: Any = file
        if path.suffix == ".gz":
            # Without the time in it, the same rows give the same bytes.
            target = gzip.GzipFile(fileobj=file, mode="wb", mtime=0)
        target.write(_as_csv([COLUMNS]))
        for name in names:
            split = dataset.splits[name]
            of_split = importance.load(name)
            with stage(f"writing {name}", len(split), "observations") as bar:
                for first, last in _parts(split):
                    part = columns(split, of_split, dataset.vocabulary, first, last)
                    target.write(_as_csv(_lines(name, part)))
                    bar.update(last - first)
        if target is not file:
            target.close()


def columns(
    split: Split, importance: SplitImportance, vocabulary: Vocabulary, first: int, last: int
) -> dict[str, np.ndarray]:
    """Return the columns of a table for the observations from `first` to before `last` of a split.

    There is a row for every token that can be masked. The columns are the number of the observation in the split, the
    position of the token (0 is `[CLS]`), the token as text, its importance (larger is more important), and the seconds
    that explaining this observation took: those of its batch, divided by the number of observations in the batch (NaN
    where this is not known).
    """
    place = slice(split.offsets[first], split.offsets[last])  # of the tokens
    lengths = np.diff(split.offsets[first : last + 1])
    maskable = split.maskable[place]
    position = np.arange(place.start, place.stop) - np.repeat(split.offsets[first:last], lengths)
    names = np.array([*SPECIALS, *vocabulary.words], dtype=object)
    seconds = np.full(last - first, np.nan)
    if importance.seconds is not None:
        seconds = importance.seconds[first:last]
    return {
        "observation": np.repeat(np.arange(first, last), lengths)[maskable],
        "position": position[maskable],
        "token": names[split.tokens[place]][maskable],
        "importance": importance.values[place][maskable],
        "seconds": np.repeat(seconds, lengths)[maskable],
    }


def _parts(split: Split) -> Iterator[tuple[int, int]]:
    """Yield the first observation of each part of a split, and the one after its last.

    A part has at most `_TOKENS_AT_ONCE` tokens, or is one longer observation.
    """
    first = 0
    while first < len(split):
        limit = split.offsets[first] + _TOKENS_AT_ONCE
        last = int(np.searchsorted(split.offsets, limit, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _as_csv(lines: Iterable[Sequence[Any]]) -> bytes:
    """Return lines as CSV in UTF-8, with line feeds on every system."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _lines(split_name: str, part: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Yield the lines of a part, with cells in the order of `COLUMNS`.

    Importance has nine significant digits, from which single precision is read back exactly. Seconds that are not known
    are left empty.
    """
    importance = [format(value, ".9g") for value in part["importance"].tolist()]
    seconds = ["" if np.isnan(value) else format(value, ".6f") for value in part["seconds"].tolist()]
    cells = {
        "split": repeat(split_name, len(importance)),
        "observation": part["observation"].tolist(),
        "position": part["position"].tolist(),
        "token": part["token"],
        "importance": importance,
        "seconds": seconds,
    }
    return zip(*(cells[name] for name in COLUMNS), strict=True)
