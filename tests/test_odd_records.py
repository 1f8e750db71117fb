"""Records with odd values: the report names the file or reports it, and never ends in a traceback."""

import copy
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nlproar.report import formats, frame, page, panels, tables
from nlproar.report.results import collect
from nlproar.run.layout import Layout
from tests import made_records

GONE = object()  # the key is deleted
ODD = (
    GONE, None, True, False, 0, -1, 1, 101, 0.5, 1e300, -1e300, 10**30, -(2**63), float("nan"), float("inf"),
    float("-inf"), "", "0.5", "quantile", "random", "../../x", "a\nb\x1b[31m", "\ud800", "<script>alert(1)</script>",
    "$\\frac{$ & % # _ {", "|", [], [1, "a", None], {}, {"accuracy": 1}, [[[[]]]],
)  # fmt: skip


def places(content, above=()):
    """Every place in a record, as the keys that lead there."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*above, key)
        yield from places(value, (*above, key))


def put(content, place, value):
    """Replace or delete what is at `place`."""
    for key in place[:-1]:
        content = content[key]
    if value is GONE:
        del content[place[-1]]
    else:
        content[place[-1]] = value


def report(folder, drawn=True):
    """All of a report but its files, with pictures if they are `drawn`: every text must be one that can be written."""
    found = frame.load([Layout(folder)])
    results = collect(found, "cpu", None)
    pictures = panels.everything(results)
    texts = [page.render(results, pictures if drawn else []), results.points.to_csv(), *results.notes]
    for table in tables.to_read(results).values():
        texts += [formats.markdown(table), formats.latex(table)]
    for text in texts:
        text.encode()
    return found, texts


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The contents of the records of a small study."""
    folder = tmp_path_factory.mktemp("good")
    made_records.study(folder, "babi-1", seeds=[0, 1], measures=["gradient"], step=50, source="simulated")
    return [json.loads(path.read_text()) for path in Layout(folder).records()]


@pytest.mark.slow
@settings(
    max_examples=40,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_record_with_odd_values_is_reported_or_named(good, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("odd")
    records = Layout(folder).results / "roar"
    records.mkdir(parents=True)
    contents = copy.deepcopy(good)
    number = data.draw(st.integers(0, len(contents) - 1))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(contents[number]))))
        put(contents[number], place, data.draw(st.sampled_from(ODD)))
    odd = made_records.forge(records, contents.pop(number))
    for content in contents:
        made_records.forge(records, content)
    found, texts = report(folder, drawn=data.draw(st.integers(1, 8)) == 1)
    if odd is None or odd.parent != records:
        return  # it is no file of the folder of records
    reported = sum(len(study.records) for study in found.studies)
    if odd in found.left_out:
        assert reported == len(contents)
        assert frame.printable(odd.name) in found.left_out[odd]
        assert any(found.left_out[odd] in text for text in texts)
    else:
        assert reported == len(list(records.iterdir()))
