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
from nlproar.progress import show_log, stage
from nlproar.published import DATASETS, in_our_words
from nlproar.run.cli import parser, runs_of
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.script import exit_codes

if TYPE_CHECKING:
    from nlproar.explain.importance import SplitImportance
    from nlproar.run.context import Context

log = logging.getLogger(__name__)

COLUMNS = ("split", "observation", "position", "token", "importance", "seconds")

_ROWS_AT_ONCE = 100_000  # about 20 MB while they are written


def main(description: str, argv: list[str] | None = None) -> None:
    """Write the table that a command line asks for. Exits with 0 when it is there, else as `exit_codes` says."""
    with exit_codes("interrupted; nothing was written, and what was explained is cached"):
        config, splits, out, show_texts = _parse(description, argv)
        show_log()
        process.prepare(config.options.threads)
        path = write(config, splits, Path(out) if out else None, show_texts)
        print(f"importance: {path}", flush=True)


def _parse(description: str, argv: list[str] | None) -> tuple[Config, Sequence[str], str | None, bool]:
    words = in_our_words(argv)
    plugins.load_named(words)
    found = parser(description, None, (), "nlproar importance")
    add = found.add_argument
    names = [*TASKS, *DATASETS]
    add("--dataset", default="sst", choices=names, metavar="TASK", help=f"{', '.join(TASKS)} (default: sst)")
    add("--source", default="official", help="where the data come from (default: official)")
    add("--split", nargs="+", default=list(SPLITS), choices=SPLITS, help="which splits (default: all)")
    add("--out", metavar="FILE", help="where the table is written (default: in results/importance_measure)")
    add("--show-texts", action="store_true", help="write a table of a confidential task, which holds its texts")
    flags = vars(found.parse_args(words))
    own = {name: flags.pop(name) for name in ("split", "out", "show_texts")}
    flags.setdefault("k", [1])  # at the first level, the importance is that of the unmasked model
    dataset = flags.pop("dataset")
    configs = runs_of(DATASETS.get(dataset, dataset), flags)
    if len(configs) != 1:
        raise UserError("--k takes one level here: each level of a recursive curve has an importance of its own")
    return configs[0], own["split"], own["out"], own["show_texts"]


def write(config: Config, splits: Sequence[str] = SPLITS, out: Path | None = None, show_texts: bool = False) -> Path:
    """Write the importance by which the run `config` masks, and return the path of the table.

    The table is a CSV file, compressed if its name ends in `.gz`. It has a row for every token that can be masked,
    in the order of the text; see `columns`. Raises UserError where the model that is explained is not trained (unless
    `train_missing` is set), and where the run explains nothing. The table holds the texts, so that of a confidential
    task is refused unless `show_texts`, and is for its owner only.
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


def _write(config: Config, context: Context, splits: Sequence[str], path: Path) -> None:
    """Write the table, see `write`. The models that are explained are there."""
    importance = config.rules.importance(config, context)
    if importance is None:
        raise UserError(f"{config.id} explains nothing; choose an --importance-measure and a level --k above 0")
    dataset = context.dataset
    with storage.whole_file(path) as file:
        if config.task.confidential:
            os.fchmod(file.fileno(), 0o600)
        target: Any = gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if path.suffix == ".gz" else file
        target.write(_as_csv([COLUMNS]))
        for name in splits:
            split = dataset.splits[name]
            with stage(f"writing {name}", len(split), "observations") as bar:
                for first, last in _parts(split):
                    part = columns(split, importance.of_split[name], dataset.vocabulary, first, last)
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
    tokens = slice(split.offsets[first], split.offsets[last])
    lengths = np.diff(split.offsets[first : last + 1])
    inside = split.maskable[tokens]
    position = np.arange(tokens.start, tokens.stop) - np.repeat(split.offsets[first:last], lengths)
    names = np.array([*SPECIALS, *vocabulary.words], dtype=object)
    seconds = np.full(last - first, np.nan)
    if importance.seconds is not None:
        seconds = importance.seconds[first:last]
    return {
        "observation": np.repeat(np.arange(first, last), lengths)[inside],
        "position": position[inside],
        "token": names[split.tokens[tokens]][inside],
        "importance": importance.values[tokens][inside],
        "seconds": np.repeat(seconds, lengths)[inside],
    }


def _parts(split: Split) -> Iterator[tuple[int, int]]:
    """Yield the first observation of each part of a split, and the one after its last."""
    first = 0
    while first < len(split):
        most = split.offsets[first] + _ROWS_AT_ONCE
        last = max(first + 1, int(np.searchsorted(split.offsets, most, side="right")) - 1)
        yield first, last
        first = last


def _as_csv(lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _lines(name: str, part: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Yield the lines of a part: importance with the digits of single precision, which give the same number again."""
    importance = [format(value, ".9g") for value in part["importance"].tolist()]
    seconds = ["" if np.isnan(value) else format(value, ".6f") for value in part["seconds"].tolist()]
    numbers = (part["observation"].tolist(), part["position"].tolist())
    return zip(repeat(name, len(importance)), *numbers, part["token"], importance, seconds, strict=True)
