"""Everything that can be downloaded: addresses, sizes and checksums, once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One published file. `sha256` is None where neither publisher nor registries of data sets state one."""

    folder: str  # below `raw/`
    urls: tuple[str, ...]  # the official address, then mirrors
    sha256: str | None
    bytes: int | None = None  # shown to the user before the download
    credentialed: str = ""  # how to get files that cannot be downloaded without a person's account
    companions: tuple[Source, ...] = ()  # public files in the same folder that are needed too
    text: str = ""  # of vectors: the name of the text file, unpacked
    lines: int | None = None  # of vectors: the published number of words, where the file itself does not state it

    @property
    def filename(self) -> str:
        """The name of the downloaded file."""
        return self.urls[0].rpartition("/")[2]


SST = Source(
    folder="sst",
    urls=("https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip",),
    sha256="5c613a4f673fc74097d523a2c83f38e0cc462984d847b82c7aaf36b01cbbbfcc",
    bytes=789_539,
)
IMDB = Source(
    folder="imdb",
    urls=("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
SNLI = Source(
    folder="snli",
    urls=("https://nlp.stanford.edu/projects/snli/snli_1.0.zip",),
    sha256="afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e",
)
BABI = Source(
    folder="babi",
    urls=(
        "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz",
        "https://s3.amazonaws.com/text-datasets/babi_tasks_1-20_v1-2.tar.gz",
    ),
    sha256="0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898",
    bytes=15_719_851,
)

_DIABETES_IDS = (
    "https://raw.githubusercontent.com/successar/AttentionExplanation/602ad4ea2663d3abe98981b7374df51507612340"
)
DIABETES_IDS = tuple(
    Source("mimic", (f"{_DIABETES_IDS}/preprocess/MIMIC/{part}_50_hadm_ids.csv",), sha256, size)
    for part, sha256, size in (
        ("train", "aee261aa45a2d89368e4da275c6c0a601b8bfc2c22e3af915d89adbc068716d2", 56_462),
        ("dev", "bcd69c3be3f4d8a7d29252ac8b5b99f197875b639ab12cf3ab324ee11612ea9e", 11_011),
        ("test", "cc3d3c22cbf0c68b62508712d4fc27baf5a5cb9705c1c8f8b6fc1618332c49b2", 12_103),
    )
)
MIMIC = Source(
    folder="mimic",
    urls=(),
    sha256=None,
    credentialed="MIMIC-III needs a personal account: https://mimic.physionet.org/gettingstarted/access/",
)

VECTORS = {
    "fasttext": Source(
        folder="vectors",
        urls=("https://dl.fbaipublicfiles.com/fasttext/vectors-wiki/wiki.simple.vec",),
        sha256=None,
        text="wiki.simple.vec",
    ),
    "glove": Source(
        folder="vectors",
        urls=("https://nlp.stanford.edu/data/glove.840B.300d.zip",),
        sha256="c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
        text="glove.840B.300d.txt",
        lines=2_196_017,
    ),
}
