"""Several models of a task in one report: each is a study of its own, and they stand side by side."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from nlproar.report import agreement, cli, figures, formats, frame, page, panels, published, summary, tables
from nlproar.report.figures import Panel, Picture
from nlproar.report.results import collect
from nlproar.run import listing, record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.series import ModelName, model_of, model_title
from nlproar.study.status import Estimates, kind_of
from tests import made_records

MINILM = "MiniLM@0123456789ab"
ROBERTA = "roberta-base@abcdef012345"
SST = "Stanford Sentiment Treebank"


def bilstm(folder, **options):
    """Records of the BiLSTM, whose curves fall from 90 %."""
    return made_records.study(folder, seeds=[0, 1], **options)


def transformer(folder, model=MINILM, **options):
    """Records of a transformer, whose curves lie two points above those of the BiLSTM at every level."""
    usual = {"seeds": [0, 1], "curve": lambda config: made_records.linear(config) + 0.02, "data": "f" * 16}
    return made_records.study(folder, **{**usual, **options}, model=model)


def results(folder):
    return collect(frame.load([Layout(folder)]), "cpu", None)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the records of two models in one persistent directory tell."""
    folder = tmp_path_factory.mktemp("both")
    bilstm(folder)
    transformer(folder, measures=["gradient"])
    return results(folder)


# -------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "values, name",
    [
        ({"model_type": "rnn"}, ("rnn", "BiLSTM", None)),
        ({"model_type": "transformer", "model": "tiny"}, ("transformer", "tiny", None)),
        ({"model_type": "transformer", "model": MINILM}, ("transformer", "MiniLM", "0123456789ab")),
        ({"model_type": "transformer", "model": f"owner/{MINILM}"}, ("transformer", "MiniLM", "0123456789ab")),
        ({"model_type": "transformer", "model": "a@b@0123456789ab"}, ("transformer", "a@b", "0123456789ab")),
        ({"model_type": "of-a-plugin"}, ("of-a-plugin", "of-a-plugin", None)),
    ],
)
def test_a_model_has_a_short_name(values, name):
    assert model_of(values) == name


def test_two_models_of_one_name_are_told_apart_by_their_checksums():
    one, other = ModelName("transformer", "model", "0123456789ab"), ModelName("transformer", "model", "0fffffffffff")
    alike = ModelName("transformer", "model", "012345ffffff")
    assert model_title(one, [one, one]) == "model"
    assert model_title(one, [one, other]) == "model@012345" and model_title(other, [one, other]) == "model@0fffff"
    assert model_title(one, [one, alike]) == "model@0123456789ab"


@pytest.mark.slow
def test_models_of_one_name_are_studies_with_different_labels(tmp_path):
    for checksum in ("0" * 12, "1" * 12):
        transformer(tmp_path, f"model@{checksum}", measures=["gradient"], step=50)
    labels = [study.label for study in frame.load([Layout(tmp_path)]).studies]
    assert labels == [f"{SST} (model@000000)", f"{SST} (model@111111)"]


def test_a_model_is_named_where_it_is_not_the_usual_one(tmp_path):
    bilstm(tmp_path / "one", measures=["gradient"], step=50)
    transformer(tmp_path / "other", measures=["gradient"], step=50)
    labels = [frame.load([Layout(tmp_path / name)]).studies[0].label for name in ("one", "other")]
    assert labels == [SST, f"{SST} (MiniLM)"]


@pytest.mark.slow
def test_what_differs_is_told_among_the_studies_of_one_model(tmp_path):
    bilstm(tmp_path, measures=["gradient"], step=50)
    bilstm(tmp_path, measures=["gradient"], step=50, hidden_size=64)
    transformer(tmp_path, measures=["gradient"], step=50)
    labels = {study.label for study in frame.load([Layout(tmp_path)]).studies}
    assert f"{SST} (MiniLM)" in labels
    assert {label for label in labels if "hidden size 64" in label} == {f"{SST} (BiLSTM, hidden size 64)"}


def test_the_list_of_records_names_the_model(tmp_path, capsys):
    bilstm(tmp_path, measures=[], step=100)
    transformer(tmp_path, measures=[], step=100)
    records = [record.load(path) for path in Layout(tmp_path).records()]
    rows = [line.split()[1] for line in listing._table(records).splitlines()[1:]]
    assert rows.count("BiLSTM") == rows.count("MiniLM") == len(records) / 2


def test_the_time_of_a_model_is_not_estimated_from_another_transformer(tmp_path):
    one, other = (resolve("sst", model=name, persistent_dir=str(tmp_path)) for name in (MINILM, ROBERTA))
    estimates = Estimates([made_records.record_of(one, 0.9)])
    assert estimates.of(kind_of(one.values)) is not None and estimates.of(kind_of(other.values)) is None


# -------------------------------------------------------------------------------- numbers


def test_nothing_is_averaged_over_models(both):
    """The numbers of each model are those that it has in a report of its own."""
    by_label = {study.label: study for study in both.studies}
    assert list(by_label) == [f"{SST} (BiLSTM)", f"{SST} (MiniLM)"]
    unmasked = both.tasks.set_index("model")["unmasked"]
    assert unmasked.to_dict() == pytest.approx({"BiLSTM": 90, "MiniLM": 92})
    means = summary.curves(both.points).set_index(["study", "series", "k"])["performance"]
    difference = means[f"{SST} (MiniLM)"] - means[f"{SST} (BiLSTM)"].reindex(means[f"{SST} (MiniLM)"].index)
    np.testing.assert_allclose(difference, 0.02)
    assert (both.racu["n"] == 2).all() and len(both.racu) == 3


def test_agreement_and_trust_are_of_one_model_each(both):
    for found in (both.agreement, both.trust, both.plan, both.cost_of_metrics, both.taus):
        assert set(found["study"]) <= {study.label for study in both.studies}
        changes = (found["study"] != found["study"].shift()).sum()
        assert changes == found["study"].nunique()  # the rows of a study stand together
    measures = both.agreement.groupby("study")["series"].agg(set)
    assert measures[f"{SST} (MiniLM)"] == {"gradient"}
    scores = agreement.scores(both.studies, both.racu_by_seed)
    assert len(scores) == len(both.racu_by_seed)


def test_models_stand_side_by_side_in_a_table(both):
    (table,) = tables.side_by_side(both.racu, both.studies).values()
    assert list(table.columns) == ["masking", "measure", "BiLSTM", "published, BiLSTM", "MiniLM", "published, RoBERTa"]
    row = table.set_index("measure").loc["gradient"]
    assert row["published, BiLSTM"].startswith("7.6 ") and row["published, RoBERTa"].startswith("26.1 ")
    assert table.set_index("measure").loc["integrated-gradient", "MiniLM"] == formats.NOTHING


def test_studies_that_are_written_alike_have_columns_of_their_own(tmp_path):
    """Two paths that differ only in their middle, which is left out where they are long, are written alike."""
    folders = [tmp_path / f"{name}{'-' * 60}" / "records" for name in ("one", "other")]
    bilstm(folders[0], measures=["gradient"])
    bilstm(folders[1], measures=["gradient"], curve=lambda config: 0.9 - 0.1 * (config.at_level > 0))
    found = frame.load([Layout(folder) for folder in folders])
    labels = [study.label for study in found.studies]
    columns = [study.among_its_task for study in found.studies]
    assert len(set(labels)) == len(set(columns)) == 2, columns
    (table,) = tables.side_by_side(
        summary.racu(summary.racu_by_seed(frame.points(found.studies))), found.studies
    ).values()
    assert set(columns) <= set(table.columns)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, shown", [(ROBERTA, "26.1 (23.9 to 27.7)"), (MINILM, "26.1 (23.9 to 27.7), RoBERTa")]
)  # fmt: skip
def test_the_published_values_beside_a_transformer_are_those_of_roberta(model, shown, tmp_path):
    transformer(tmp_path, model, measures=["gradient"])
    found = results(tmp_path)
    assert tables.racu(found.racu, found.studies)["published % (95 %)"].tolist() == [shown]
    assert [value.percent for value in published.performance(found.studies[0], "unmasked")] == [94.5]
    assert found.tasks["unmasked, Madsen et al. 2022, RoBERTa"].tolist() == [94.5]


@pytest.mark.slow
def test_the_page_has_the_number_of_parameters_of_each_model(tmp_path):
    bilstm(tmp_path, measures=["gradient"], step=50)
    config = resolve("sst", model=MINILM, persistent_dir=str(tmp_path))
    training = {**made_records.record_of(config, 0.9).training, "parameters": None}
    made_records.made(config, 0.9, training=training)  # as in a record of an earlier version
    found = results(tmp_path)
    shown = tables.to_read(found)["tasks"].set_index("model")["parameters"]
    assert shown.to_dict() == {"BiLSTM": "1,000", "MiniLM": formats.NOTHING}
    assert tables.models_of("sst", found.studies) == "BiLSTM 1,000; MiniLM unknown"


# -------------------------------------------------------------------------------- figures


def drawn(panel):
    ax = Figure().subplots()
    panel.draw(ax)
    return ax


def test_curves_are_facets_with_the_same_axes(both):
    (picture,) = panels.curves(both.points, both.studies)
    assert [panel.title for panel in picture.panels] == [
        f"{SST} ({name})\nRecursive ROAR" for name in ("BiLSTM", "MiniLM")
    ]
    one, other = map(drawn, picture.panels)
    assert one.get_xlim() == other.get_xlim() and one.get_ylim() == other.get_ylim()
    assert len({look.label for look in picture.legend}) == len(picture.legend)


def test_measures_stand_at_the_same_height_in_all_facets_of_racu(both):
    picture = panels.racu(both.racu, both.racu_by_seed, both.studies)
    one, other = map(drawn, picture.panels)
    assert one.get_xlim() == other.get_xlim()
    names = [[tick.get_text() for tick in ax.get_yticklabels()] for ax in (one, other)]
    assert names[0] == names[1] == ["gradient", "integrated-gradient"]
    assert [look.label for look in picture.legend] == ["published, recursive", "published for RoBERTa, recursive"]


@pytest.mark.slow
def test_a_row_has_the_models_of_one_masking(tmp_path):
    for dataset, write in (("sst", bilstm), ("sst", transformer), ("imdb", bilstm)):
        write(tmp_path, dataset=dataset, measures=["gradient"], step=50, recursive=(True, False))
    found = results(tmp_path)
    (picture,) = panels.curves(found.points, found.studies)
    masking = [panel.title.partition("\n")[2] for panel in picture.panels]
    assert masking == ["ROAR", "ROAR", "Recursive ROAR", "Recursive ROAR", "ROAR", "Recursive ROAR"]
    assert picture.columns == 2 and figures.places(picture) == list(range(6))


def test_a_panel_can_begin_a_row():
    made = [Panel(name, "", lambda ax: None, begins_row=name in "ad") for name in "abcdef"]
    assert figures.places(Picture("p", "", "", made, columns=2)) == [0, 1, 2, 4, 5, 6]
    assert figures.places(Picture("p", "", "", made, columns=3)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_the_page_names_each_model(both, tmp_path):
    pictures = panels.everything(both)
    for picture in pictures:
        figures.save(picture, tmp_path)
    text = page.render(both, pictures)
    assert "Models side by side: Stanford Sentiment Treebank" in text
    assert "Parameters of the models: BiLSTM 1,000; MiniLM 1,000." in text
    assert re.search(r'<figure class="begins-row" role="img" aria-label="[^"]*\(BiLSTM\), Recursive ROAR\.', text)


@pytest.mark.slow
def test_the_command_reports_two_models(tmp_path, capsys):
    bilstm(tmp_path, measures=["gradient"], step=50)
    transformer(tmp_path, measures=["gradient"], step=50)
    cli.main("", ["--persistent-dir", str(tmp_path), "--no-convergence"])
    said = capsys.readouterr().out
    assert f"| {SST} (BiLSTM) |" in said and f"| {SST} (MiniLM) |" in said
    assert {"racu_sst.md", "racu_sst.tex"} <= {path.name for path in (tmp_path / "tables").iterdir()}


def test_a_changed_measure_has_no_published_value(tmp_path):
    made_records.study(tmp_path, measures=["gradient"])
    made_records.study(tmp_path, measures=["gradient"], transform="twin")
    made_records.study(tmp_path, measures=["integrated-gradient"], riemann_samples=30)
    found = collect(frame.load([Layout(tmp_path)]), "cpu", None)
    shown = tables.racu(found.racu, found.studies).set_index("measure")["published % (95 %)"]
    assert shown["gradient (transform twin)"] == formats.NOTHING != shown["gradient"]
    assert shown["integrated-gradient (riemann samples 30)"] != formats.NOTHING
