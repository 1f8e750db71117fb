"""How a model is built and trained for a task: the facts that belong to the pair. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nlproar.dataset import PLANTED
from nlproar.dataset.pretrained import SHORTEST, TINY, is_identified, locate
from nlproar.dataset.sources import VECTORS
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint
from nlproar.flags import flag, flags_of
from nlproar.paths import as_utf8, user_path
from nlproar.seeds import derive

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Dataset
    from nlproar.dataset.subwords import Subwords
    from nlproar.dataset.task import Task
    from nlproar.run.layout import Layout

NAMED_VECTORS = (*VECTORS, "word2vec", "random")


@dataclass(frozen=True)
class Recipe:
    """What every model needs to be trained. A model with more facts has a subclass."""

    reads_words: ClassVar[bool] = True  # False: the tokens are subwords of a pretrained model
    of_training: ClassVar[tuple[str, ...]] = ()  # flags that mean nothing for a model that is used as it is

    max_epochs: int = flag(8, "epochs of training (default: those of the task)", limits=(1, 10**6))
    batch_size: int = flag(32, "observations of a training batch (default: that of the task)", limits=(1, 10**6))
    acc_batches: int = flag(1, "training batches whose gradients are averaged for one step", limits=(1, 10**6))

    @property
    def is_from_file(self) -> bool:
        """Whether the model starts from files besides the data."""
        return False

    @property
    def is_trained(self) -> bool:
        """Whether the model is trained, and not used as it is."""
        return True

    def chosen_by(self, model_type: str) -> str:
        """Return the flag that has chosen the model, as messages show it."""
        return f"--model-type {model_type}"

    def completed(self, layout: Layout) -> Recipe:
        """Return the recipe with everything filled in that its values stand for. Raises UserError if that fails."""
        return self

    def paths(self) -> dict[str, str]:
        """Return the flags whose values are identified by content, with the paths that the user gave."""
        return {}

    def with_absolute_paths(self) -> Recipe:
        """Return the same recipe, which means the same files in any current folder."""
        return self

    def usual_like(self, usual: Recipe) -> Recipe:
        """Return the recipe from which this one differs by what the user chose. `usual` is that of the task."""
        return usual

    def subwords(self) -> Subwords | None:
        """Return which tokenizer encodes the texts; None for the words of the task."""
        return None

    def fetch(self, raw_dir: Path, cache_dir: Path) -> None:
        """Bring the files into `raw_dir` that the model starts from, if they are not there."""

    def files_identity(self, task: Task, dataset: Dataset, seed: int, layout: Layout) -> str | None:
        """Return what identifies the files that the model starts from, besides the data; None if there are none.

        Raises UserError where they are not there.
        """
        return None


def advice_if_not_finite(recipe: Recipe) -> str:
    """Return what the user can do where the loss or a metric of a model is not a finite number."""
    flags = flags_of(type(recipe))
    advice = []
    if recipe.is_trained and "learning_rate" in flags:
        advice.append("choose a smaller --learning-rate")
    if "vectors" in flags:
        advice.append("check the word vectors for very large numbers")
    return ", or ".join(advice) or "check the weights of the model"


@dataclass(frozen=True)
class BiLSTMRecipe(Recipe):
    """Facts of the BiLSTM with attention of Jain & Wallace (2019), as Madsen et al. (2022) trained it.

    `vectors` is a name of `NAMED_VECTORS` or, of a file, its name and fingerprint; `vectors_file` is the path then.
    """

    vectors: str = flag(
        "random", f"word vectors: {', '.join(NAMED_VECTORS)}, or a text file of them (default: those of the task)"
    )
    hidden_size: int = flag(128, "states of the LSTM in each direction (default: those of the task)", limits=(1, 10**5))
    learning_rate: float = flag(1e-3, "learning rate (default: that of the task and the model)", limits=(1e-9, 10))
    weight_decay: float = flag(1e-5, "weight decay (default: rnn 1e-5, transformer 0.01)", limits=(0, 1))
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
        raise UserError(f"--vectors {path}: this is not a file; give one, or {', '.join(NAMED_VECTORS)}")
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
_PLANTED = BiLSTMRecipe(
    max_epochs=6, batch_size=20, hidden_size=32, learning_rate=5e-3, unknown_vectors="normal", random_dimensions=50
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
    **dict.fromkeys(PLANTED, _PLANTED),
    "planted-pair": replace(_PLANTED, max_epochs=12),
}


def bilstm(task: Task) -> BiLSTMRecipe:
    """Return the usual recipe of the BiLSTM for a task; a task without one of its own starts from random vectors."""
    other = BiLSTMRecipe(vectors="random", unknown_vectors="normal", random_dimensions=50)
    return _BILSTM.get(task.name, other)


# Transformers


@dataclass(frozen=True)
class TransformerRecipe(Recipe):
    """How a transformer is fine-tuned, as Madsen et al. (2022) did with RoBERTa: AdamW, and a learning rate that rises
    linearly over the first steps and then falls linearly to zero.

    `model` is the name of a model or, of one that was located, its identity (see `nlproar.dataset.pretrained`); `named`
    is then what the user called it, and `folder` where it lies. 0 stands for a value that depends on the model, until
    the recipe is completed.
    """

    reads_words: ClassVar[bool] = False
    of_training: ClassVar[tuple[str, ...]] = (
        "max_epochs",
        "batch_size",
        "acc_batches",
        "learning_rate",
        "weight_decay",
        "warm_up",
    )

    max_epochs: int = flag(0, "epochs of training (default: those of the task)", limits=(1, 10**6))
    batch_size: int = flag(0, "observations of a training batch (default: that of the task)", limits=(1, 10**6))
    model: str = flag(
        "roberta-base", f"transformer: {TINY}, a folder, or a name on the Hugging Face hub (default: roberta-base)"
    )
    max_length: int = flag(512, "tokens of an observation that a transformer reads, at most", limits=(SHORTEST, 10**6))
    learning_rate: float = flag(0.0, "learning rate (default: that of the task and the model)", limits=(1e-9, 10))
    weight_decay: float = flag(0.01, "weight decay (default: rnn 1e-5, transformer 0.01)", limits=(0, 1))
    warm_up: float = flag(0.06, "share of the steps in which the learning rate of a transformer rises", limits=(0, 1))
    as_is: bool = flag(False, "use a transformer that can classify already as it is, without training")
    bf16: bool = flag(False, "train and test a transformer in bfloat16 where autocast does; its weights stay float32")
    named: str | None = None
    folder: str | None = None
    tokenizer: str | None = None  # checksum of its files
    longest: int = 10**6  # tokens that the model takes

    @property
    def is_trained(self) -> bool:
        """See `Recipe.is_trained`."""
        return not self.as_is

    def chosen_by(self, model_type: str) -> str:
        """See `Recipe.chosen_by`."""
        return f"--model {self.named or self.model}"

    def completed(self, layout: Layout) -> TransformerRecipe:
        """Locate the model, which may be downloaded, and fill in what depends on it."""
        filled = self._filled()
        if self.as_is and self.model == TINY:
            raise UserError(f"--as-is: {TINY} has random weights until it is trained; name a model that can classify")
        if self.model == TINY or self.named is not None or is_identified(self.model):
            return filled
        found, folder = locate(self.model, layout)
        return replace(
            filled,
            model=found.identity,
            named=user_path("--model", self.model),
            folder=None if folder is None else str(folder),
            tokenizer=found.tokenizer,
            longest=found.longest,
        )

    def _filled(self) -> TransformerRecipe:
        """Return the recipe with a number for every value that depends on whether the model is pretrained."""
        usual = _TINY if self.model == TINY else _FINE_TUNING
        return replace(
            self,
            max_epochs=self.max_epochs or usual["max_epochs"],
            batch_size=self.batch_size or usual["batch_size"],
            learning_rate=self.learning_rate or usual["learning_rate"],
        )

    def usual_like(self, usual: Recipe) -> Recipe:
        """See `Recipe.usual_like`: the epochs and the like of a pretrained model, or of the tiny one."""
        assert isinstance(usual, TransformerRecipe)
        return replace(replace(usual, model=self.model)._filled(), model=usual.model)

    def paths(self) -> dict[str, str]:
        """See `Recipe.paths`."""
        return {} if self.named is None else {"model": self.named}

    def with_absolute_paths(self) -> TransformerRecipe:
        """See `Recipe.with_absolute_paths`."""
        if self.named is None or not Path(self.named).is_dir():
            return self
        return replace(self, named=str(Path(self.named).absolute()))

    def subwords(self) -> Subwords:
        """See `Recipe.subwords`. Raises UserError for a model of which only the identity is known."""
        from nlproar.dataset.subwords import Subwords

        if self.model == TINY:
            return Subwords(TINY, None, None, self.max_length)
        if self.tokenizer is None:
            raise UserError(f"--model {self.model}: it is not known where this model lies; name it or its folder")
        return Subwords(self.named or self.model, self.folder, self.tokenizer, min(self.max_length, self.longest))


_FINE_TUNING: dict[str, Any] = {"max_epochs": 3, "batch_size": 16, "learning_rate": 2e-5}
_TINY: dict[str, Any] = {"max_epochs": 8, "batch_size": 32, "learning_rate": 5e-4}  # from random weights
_STORIES_EPOCHS = 8


def transformer(task: Task) -> TransformerRecipe:
    """Return the usual recipe of a transformer for a task."""
    if task.name.startswith("babi-"):
        return TransformerRecipe(max_epochs=_STORIES_EPOCHS)
    return TransformerRecipe()
