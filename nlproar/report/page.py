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
    "trust_plan": "How many seeds would tell two measures apart",
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
    used = [*(one for picture in pictures for one in picture.legend), *_measures(results.points)]
    variables = figures.variables(used)
    read = tables.to_read(results)
    racu = read["racu"]
    if (racu["published % (95 %)"] == formats.NOTHING).all():
        racu = racu.drop(columns="published % (95 %)")
    return environment.get_template("page.html").render(
        racu=_table(racu),
        beside=[_beside(name, frame, results.studies) for name, frame in read.items() if name.startswith("racu_")],
        differences=_table(read["differences"]),
        trust=[(title, _table(read[name])) for name, title in _TRUST.items() if name in read],
        tasks=_table(read["tasks"]),
        cost=_table(read["cost"]),
        pictures=[_picture(picture, variables) for picture in pictures],
        numbers=_numbers(read, pictures),
        strips=[_strips(cache, number) for number, cache in enumerate(results.caches)],
        colors={measure: variables[one.color] for measure, one in _looks(results.points).items()},
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
    titles = [str(study.task["title"]) for study in studies if study.dataset == dataset]
    models = {study.model for study in studies if study.dataset == dataset}
    return {
        "title": printable(titles[0]),
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


def _numbers(read: Mapping[str, pd.DataFrame], pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables that have the numbers of a picture, by its name: "curves_quantile" those of this name,
    "sparsity" also "sparsity_count"."""
    found = {}
    for picture in pictures:
        if picture.name == "racu":  # its table stands on the page for itself
            continue
        own = [frame for name, frame in read.items() if name == picture.name or name.startswith(f"{picture.name}_")]
        found[picture.name] = [_table(frame) for frame in own]
    return found


def _looks(points: pd.DataFrame) -> dict[str, Look]:
    return {measure: figures.look(measure, measure) for measure in points["measure"].unique()}


def _measures(points: pd.DataFrame) -> list[Look]:
    return list(_looks(points).values())


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns, with whether they hold numbers, and blocks of rows with the task and masking they share."""
    grouped = [name for name in ("task", "masking") if name in frame.columns[:2]] if "measure" in frame else []
    if "measures" in frame:
        grouped += [name for name in ("task", "masking", "metric") if name in frame]
    grouped += ["task"] if "rule" in frame else []
    grouped += ["task", "metric"] if "verdict" in frame else []
    rest = frame.drop(columns=grouped)
    columns = [(name, formats.is_numeric(frame[name])) for name in rest.columns]
    blocks: list[dict[str, Any]] = []
    for heads, row in zip(frame[grouped].itertuples(index=False), rest.itertuples(index=False), strict=True):
        title = ", ".join(head for head in heads if head != formats.NOTHING)
        if not blocks or blocks[-1]["title"] != title:
            blocks.append({"title": title, "rows": []})
        blocks[-1]["rows"].append(list(map(str, row)))
    return {"columns": columns, "blocks": blocks}


def _picture(picture: Picture, variables: dict[str, str]) -> dict[str, Any]:
    """Title, caption and panels: title, description and SVG, which is ours and escaped by matplotlib."""
    shown = []
    for panel in picture.panels:
        svg = Markup(figures.svg(picture, panel, variables))
        title = panel.title.replace("\n", ", ")
        about = {"title": title, "description": panel.description, "begins_row": panel.begins_row}
        shown.append({**about, "svg": svg})
    columns = picture.columns if any(panel.begins_row for panel in picture.panels) else None
    about = {"name": picture.name, "title": picture.title, "caption": picture.caption}
    return {**about, "panels": shown, "columns": columns}


def _setting(study: Study) -> dict[str, Any]:
    """What a study was run with: its configuration, and every version, device and commit among its records."""
    facts = {name.replace("_", " "): study.records[0].config.get(name) for name in _FACTS}
    facts["parameters of the model"] = "unknown" if study.parameters is None else f"{study.parameters:,}"
    facts["data"] = study.facts["data"]
    facts |= {f"task: {name.replace('_', ' ')}": value for name, value in study.task.items()}
    facts["task: labels"] = ", ".join(study.task["labels"])
    environments = [one.environment for one in study.records]
    for name in ("python", "system", "device", "threads", "commit"):
        facts[name] = _counted([environment.get(name) for environment in environments])
    for library in sorted({name for environment in environments for name in environment["versions"]}):
        facts[library] = _counted([environment["versions"].get(library) for environment in environments])
    facts["most memory"] = f"{max(environment.get('peak_memory_gb', 0) for environment in environments):.2f} GB"
    return {"study": study.label, "facts": {printable(key): printable(str(value)) for key, value in facts.items()}}


def _counted(values: list[Any]) -> str:
    """All values there are, most frequent first, with how often if they differ."""
    counts = Counter("unknown" if value is None else str(value) for value in values).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts)
