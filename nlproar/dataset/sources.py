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

    @property
    def filename(self) -> str:
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

VECTORS = {
    "fasttext": Source(
        folder="vectors",
        urls=("https://dl.fbaipublicfiles.com/fasttext/vectors-wiki/wiki.simple.vec",),
        sha256=None,
    ),
    "glove": Source(
        folder="vectors",
        urls=("https://nlp.stanford.edu/data/glove.840B.300d.zip",),
        sha256="c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
    ),
}
