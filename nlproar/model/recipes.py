"""How a model is built and trained for a task: the facts that belong to the pair. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nlproar.dataset.sources import VECTORS
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint
from nlproar.flags import flag
from nlproar.paths import as_utf8, user_path
from nlproar.seeds import derive

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Dataset
    from nlproar.dataset.task import Task
    from nlproar.run.layout import Layout

NAMED_VECTORS = (*VECTORS, "word2vec", "random")


@dataclass(frozen=True)
class Recipe:
    """What every model needs to be trained. A model with more facts has a subclass."""

    max_epochs: int = flag(8, "epochs of training (default: those of the task)", limits=(1, 10**6))
    batch_size: int = flag(32, "observations of a training batch (default: that of the task)", limits=(1, 10**6))
    acc_batches: int = flag(1, "training batches whose gradients are added up for one step", limits=(1, 10**6))

    @property
    def is_from_file(self) -> bool:
        """Whether the model starts from files besides the data."""
        return False

    def completed(self, layout: Layout) -> Recipe:
        """Return the recipe with everything filled in that its values stand for. Raises UserError if that fails."""
        return self

    def paths(self) -> dict[str, str]:
        """Return the flags whose values are identified by content, with the paths that the user gave."""
        return {}

    def with_absolute_paths(self) -> Recipe:
        """Return the same recipe, which means the same files in any current folder."""
        return self

    def fetch(self, raw_dir: Path, cache_dir: Path) -> None:
        """Bring the files into `raw_dir` that the model starts from, if they are not there."""

    def files_identity(self, task: Task, dataset: Dataset, seed: int, layout: Layout) -> str | None:
        """Return what identifies the files that the model starts from, besides the data; None if there are none.

        Raises UserError where they are not there.
        """
        return None


@dataclass(frozen=True)
class BiLSTMRecipe(Recipe):
    """Facts of the BiLSTM with attention of Jain & Wallace (2019), as Madsen et al. (2022) trained it.

    `vectors` is a name of `NAMED_VECTORS` or, of a file, its name and fingerprint; `vectors_file` is the path then.
    """

    vectors: str = flag(
        "random", f"word vectors: {', '.join(NAMED_VECTORS)}, or a text file of them (default: those of the task)"
    )
    hidden_size: int = flag(128, "states of the LSTM in each direction (default: those of the task)", limits=(1, 10**5))
    learning_rate: float = flag(1e-3, "learning rate of Adam", limits=(1e-9, 10))
    weight_decay: float = flag(1e-5, "weight decay of Adam", limits=(0, 1))
    vectors_file: str | None = None
    unknown_vectors: str = "zeros"  # what words without a vector start from: "zeros" or "normal"
    random_dimensions: int = 300  # of vectors that come from no file

    @property
    def is_from_file(self) -> bool:
        """Whether the word vectors come from a file."""
        return self.vectors not in ("random", "word2vec")

    def completed(self, layout: Layout) -> BiLSTMRecipe:
        """Identify a file of vectors by its content, wherever it lies."""
        if self.vectors in NAMED_VECTORS or self.vectors_file is not None:
            return self
        path = user_path("--vectors", self.vectors)
        return replace(self, vectors=name_vectors(path, layout), vectors_file=path)

    def paths(self) -> dict[str, str]:
        """See `Recipe.paths`."""
        return {} if self.vectors_file is None else {"vectors": self.vectors_file}

    def with_absolute_paths(self) -> BiLSTMRecipe:
        """See `Recipe.with_absolute_paths`."""
        if self.vectors_file is None:
            return self
        return replace(self, vectors_file=str(Path(self.vectors_file).absolute()))

    def fetch(self, raw_dir: Path, cache_dir: Path) -> None:
        """Download published vectors. Raises UserError where they cannot be had."""
        from nlproar.dataset import vectors

        if self.vectors in VECTORS:
            vectors.find(self.vectors, raw_dir, cache_dir)

    def files_identity(self, task: Task, dataset: Dataset, seed: int, layout: Layout) -> str | None:
        """See `Recipe.files_identity`: the vectors, by the words that have one and by their numbers."""
        from nlproar.dataset import vectors

        return vectors.identity(
            self.vectors,
            self.vectors_file,
            dataset,
            self.random_dimensions,
            derive(seed, "vectors"),
            layout.raw,
            layout.cache,
        )


def name_vectors(path: str, layout: Layout) -> str:
    """Return what identifies a file of vectors: its name and a fingerprint. Raises UserError if it is no file."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"--vectors {path}: this is no file; give one, or {', '.join(NAMED_VECTORS)}")
    if not file.stat().st_size:
        raise UserError(f"--vectors {path}: the file is empty; give a text file with one word and its numbers a line")
    return f"{as_utf8(file.name)}@{_fingerprint(file, layout)}"


_fingerprints: dict[tuple[Path, int, int], str] = {}  # a study resolves thousands of runs with the same vectors


def _fingerprint(file: Path, layout: Layout) -> str:
    """Return the fingerprint of a file, which is kept in the cache if the file is large."""
    stat = file.stat()
    known = (file.absolute(), stat.st_size, stat.st_mtime_ns)
    if known not in _fingerprints:
        _fingerprints[known] = fingerprint(file, layout.cache)
    return _fingerprints[known]


_SENTENCES = BiLSTMRecipe(max_epochs=8, batch_size=32, vectors="fasttext")
_NOTES = BiLSTMRecipe(max_epochs=8, batch_size=32, vectors="word2vec", unknown_vectors="normal")
_STORIES = BiLSTMRecipe(
    max_epochs=100, batch_size=50, hidden_size=32, vectors="random", unknown_vectors="normal", random_dimensions=50
)
_BILSTM = {
    "sst": _SENTENCES,
    "imdb": _SENTENCES,
    "snli": BiLSTMRecipe(max_epochs=25, batch_size=128, vectors="glove"),
    "mimic-diabetes": _NOTES,
    "mimic-anemia": _NOTES,
    "babi-1": _STORIES,
    "babi-2": _STORIES,
    "babi-3": _STORIES,
}


def bilstm(task: Task) -> BiLSTMRecipe:
    """Return the usual recipe of the BiLSTM for a task; a task without one of its own starts from random vectors."""
    other = BiLSTMRecipe(vectors="random", unknown_vectors="normal", random_dimensions=50)
    return _BILSTM.get(task.name, other)
