"""The report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nlproar.report import figures, formats, tables
from nlproar.report.caches import Caches
from nlproar.report.figures import Look, Picture
from nlproar.report.frame import Study, printable
from nlproar.report.results import Results
from nlproar.report.strips import strips
from nlproar.stats.faithfulness import SMALLEST_FALL

_TRUST = {
    "trust": "Verdicts",
    "trust_truth": "Kendall's tau between each metric and the truth of the planted tasks, over measures",
    "trust_plan": "How many seeds would tell two measures apart, by a t test of these alone, without Holm's correction",
    "bias": "What each measure prefers, whatever the model",
    "randomisation": "Rank correlation of importance with that of a model whose layers are randomised, from the output"
    " up to the layer that is named, and with that of a model of another seed",
    "shift": "Shift of masked test observations, %: above 0 away from the middle of what the model knows, below 0"
    " towards it, by the share of masked tokens",
    "outside": "Test observations outside of the distribution that the model knows, %, by the share of masked tokens",
}
_FACTS = ("source", "model_type", "model", "max_epochs", "batch_size", "vectors")


def render(results: Results, pictures: Sequence[Picture]) -> str:
    """The page. Texts and names are escaped, also within scripts; no text of a confidential task is in it."""
    environment = Environment(
        loader=PackageLoader("nlproar.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    looks = {measure: figures.look(measure, measure) for measure in results.points["measure"].unique()}
    used: list[Look] = []
    for picture in pictures:
        used += picture.legend
    used += looks.values()
    variables = figures.variables(used)

    read = tables.to_read(results)
    pictures = _with_agreement(pictures, read)
    racu = read["racu"]
    if (racu["published % (95 %)"] == formats.NOTHING).all():
        racu = racu.drop(columns="published % (95 %)")
    beside = []
    for name, frame in read.items():
        if name.startswith("racu_"):
            beside.append(_beside(name, frame, results.studies))
    trust = []
    for name, title in _TRUST.items():
        if name in read:
            trust.append((title, _table(read[name])))

    return environment.get_template("page.html").render(
        racu=_table(racu),
        beside=beside,
        differences=_table(read["differences"]),
        trust=trust,
        tasks=_table(read["tasks"]),
        cost=_table(read["cost"]),
        pictures=[_picture(picture, variables) for picture in pictures],
        numbers=_numbers(read, pictures),
        strips=[_strips(cache, number) for number, cache in enumerate(results.caches)],
        colors={measure: variables[look.color] for measure, look in looks.items()},
        palette=[(variable, color, figures.on_dark(color)) for color, variable in variables.items()],
        setting=[_setting(study) for study in results.studies],
        notes=results.notes,
        smallest_fall=f"{100 * SMALLEST_FALL:g}",
        records=sum(len(study.records) for study in results.studies),
        seeds=max(len(study.seeds) for study in results.studies),
    )


def _beside(name: str, frame: pd.DataFrame, studies: Sequence[Study]) -> dict[str, Any]:
    """Return what the template needs of a table of studies side by side, which is called racu_TASK."""
    dataset = name.removeprefix("racu_")
    of_task = [study for study in studies if study.dataset == dataset]
    models = {study.model for study in of_task}
    return {
        "title": printable(str(of_task[0].task["title"])),
        "what": "Models" if len(models) > 1 else "Studies",
        "parameters": tables.models_of(dataset, studies),
        "table": _table(frame),
    }


def _strips(cache: Caches, number: int) -> dict[str, Any]:
    """Return what the template needs of a study: its strips as data for the script, or why there are none, and the
    notes on them, which are said above the strips."""
    data = strips(cache)
    notes = [printable(note) for note in data.pop("notes", [])]
    return {"study": cache.study.label, "number": number, "data": data, "gone": data.get("gone"), "notes": notes}


def _with_agreement(pictures: Sequence[Picture], read: Mapping[str, pd.DataFrame]) -> list[Picture]:
    """Return the pictures, and a section for the tables of agreement where there are no two orders to draw."""
    sections = list(pictures)
    if "agreement" in read and all(picture.name != "agreement" for picture in pictures):
        caption = "The score of each measure by each metric, and what each metric has cost."
        sections.append(Picture("agreement", "Scores by each metric", caption, [], [], 1, (0, 0)))
    return sections


def _numbers(read: Mapping[str, pd.DataFrame], pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables that have the numbers of a picture, by its name: "curves_quantile" those of this name,
    "sparsity" also "sparsity_count"."""
    found: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures:
        if picture.name == "racu":  # its table stands on the page for itself
            continue
        found[picture.name] = []
        for name, frame in read.items():
            if name == picture.name or name.startswith(f"{picture.name}_"):
                found[picture.name].append(_table(frame))
    return found


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return columns, with whether they hold numbers, and blocks of rows with the columns that name the block."""
    shared = _shared_columns(frame)
    rest = frame.drop(columns=shared)
    columns = [(name, formats.is_numeric(frame[name])) for name in rest.columns]
    blocks: list[dict[str, Any]] = []
    for heads, row in zip(frame[shared].itertuples(index=False), rest.itertuples(index=False), strict=True):
        title = ", ".join(head for head in heads if head != formats.NOTHING)
        if not blocks or blocks[-1]["title"] != title:
            blocks.append({"title": title, "rows": []})
        blocks[-1]["rows"].append(list(map(str, row)))
    return {"columns": columns, "blocks": blocks}


def _shared_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a table whose values stand above a block of rows instead of in each row."""
    if "verdict" in frame:
        return ["task", "metric"]
    if "rule" in frame:
        return ["task"]
    if "measures" in frame:
        return [name for name in ("task", "masking", "metric") if name in frame]
    if "measure" in frame:
        return [name for name in ("task", "masking") if name in frame.columns[:2]]
    return []


def _picture(picture: Picture, variables: dict[str, str]) -> dict[str, Any]:
    """Return title, caption and panels: title, description and SVG, which is ours and escaped by matplotlib."""
    shown = []
    for panel in picture.panels:
        shown.append(
            {
                "title": panel.title.replace("\n", ", "),
                "description": panel.description,
                "begins_row": panel.begins_row,
                "svg": Markup(figures.svg(picture, panel, variables)),
            }
        )
    has_rows = any(panel.begins_row for panel in picture.panels)
    return {
        "name": picture.name,
        "title": picture.title,
        "caption": picture.caption,
        "panels": shown,
        "columns": picture.columns if has_rows else None,
    }


def _setting(study: Study) -> dict[str, Any]:
    """Return what a study was run with: its configuration, and every version, device and commit among its records."""
    config = study.records[0].config
    environments = [one.environment for one in study.records]
    facts: dict[str, Any] = {}
    for name in _FACTS:
        facts[name.replace("_", " ")] = config.get(name)
    facts["parameters of the model"] = "unknown" if study.parameters is None else f"{study.parameters:,}"
    facts["data"] = study.facts["data"]
    for name, value in study.task.items():
        facts[f"task: {name.replace('_', ' ')}"] = value
    facts["task: labels"] = ", ".join(study.task["labels"])
    for name in ("python", "system", "processor", "device", "threads", "commit"):
        facts[name] = _counted([environment.get(name) for environment in environments])
    libraries: set[str] = set()
    for environment in environments:
        libraries |= environment["versions"].keys()
    for library in sorted(libraries):
        facts[library] = _counted([environment["versions"].get(library) for environment in environments])
    most_memory = max(environment.get("peak_memory_gb", 0) for environment in environments)
    facts["most memory"] = f"{most_memory:.2f} GB"
    return {"study": study.label, "facts": {printable(key): printable(str(value)) for key, value in facts.items()}}


def _counted(values: list[Any]) -> str:
    """Return all values there are, most frequent first, with how often if they differ."""
    counts = Counter("unknown" if value is None else str(value) for value in values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{value} ({number})" for value, number in counts)
