"""A CSV file of a user's own is read as a spreadsheet writes it, and what would shift columns is refused."""

import pytest

from nlproar.dataset.own_texts import from_csv
from nlproar.dataset.task import Example
from nlproar.errors import UserError

LABELS = ("negative", "positive")
HEADER = "split,text,label\n"


@pytest.fixture
def read(tmp_path):
    def of(content):
        path = tmp_path / "films.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return from_csv(path, LABELS)

    return of


@pytest.mark.parametrize(
    "content",
    [
        'split,text,label\ntrain,"a ""good"" film, really",positive\n',
        'id,label,text,split\r\n7,positive,"a ""good"" film, really",train\r\n\r\n',
        b'\xef\xbb\xbfsplit,text,label\r\ntrain,"a ""good"" film, really",positive',
    ],
    ids=["plain", "other order", "byte order mark"],
)
def test_columns_are_found_by_their_names(read, content):
    assert read(content) == [Example("train", 'a "good" film, really', 1)]


def test_a_pair_has_a_query_and_a_text_may_be_long_and_have_lines(read):
    text = "a film\n" * 50_000
    assert read(f'split,text,query,label\ntest,"{text}",good?,negative\n') == [Example("test", text, 0, "good?")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: the column split is missing"),
        ("split;text;label\n", "line 1: the column split is missing; the first line names the columns"),
        ("split,text\n", "line 1: the column label is missing"),
        ("split,text,label,text\n", "line 1: the column text is there twice"),
        (HEADER + "train,secret, really,positive\n", "line 2: 4 fields, and the header has 3; put a text with commas"),
        (HEADER + "train,secret\n", "line 2: 2 fields, and the header has 3"),
        (HEADER + "train,a,positive\ntrain,b,secret\n", "line 3: the label is none of negative, positive"),
        (HEADER + "train,a,1\n", "line 2: the label is none of negative, positive"),
        (HEADER + "secret,a,positive\n", "line 2: the split is none of train, val, test"),
        (HEADER + 'train,"secret,positive\n', "line 2: unexpected end of data"),
        (HEADER.encode() + b"train,\xe4,positive\n", "line 2: not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line_and_without_its_text(read, content, said):
    with pytest.raises(UserError, match=said) as error:
        read(content)
    assert "films.csv" in str(error.value) and "secret" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"films\.csv cannot be read: No such file"):
        from_csv(tmp_path / "films.csv", LABELS)
