"""The numbers that README.md and docs/ show: from the records of a study to a file, and from the file into the text.

collect --name NAME --persistent-dir DIR [--command "nlproar study ..."] [--figure PICTURE=FILE] [--metric-shown METRIC]
        [--view VIEW ...]
    Read the records of the study that the commands name, and write docs/numbers/NAME.json. Without --command the
    commands are those of the file as it is, and so are the test metric and the views. Files that a command names are
    looked for in the current folder. With --view, the file holds what these views need and nothing else.
write
    Put what the files of docs/numbers/ say between the markers of README.md and docs/*.md.
check
    Compare the texts and the figures with the files. The exit code is 1 where they differ.

A marker in a text is one of these:
    <!-- numbers: NAME VIEW --> ... <!-- end -->
        VIEW is scores or ranks (of each measure by each metric), printed (what the study prints at its end), commands
        (what makes the study), a table of the file such as agreement_taus or trust, or section for the commands and
        most tables, each with a sentence.
    <!-- numbers: NAME VIEW of COLUMN, COLUMN where COLUMN is VALUE or VALUE and COLUMN is VALUE --> ... <!-- end -->
        Some columns of such a table, and the rows that have one of these values in each of the columns behind "where".
        Either part may be missing.
    <!-- number: NAME | METRIC | MEASURE | FIELD --> ... <!-- end -->
        One number within a line. FIELD is score, interval or rank, and METRIC is named as in the table of scores.
"""

from __future__ import annotations

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    if __name__ == "__main__":  # the tests import this file, and handle Ctrl-C themselves
        end_at_ctrl_c()
    import argparse
    import datetime
    import hashlib
    import json
    import re
    import shlex
    import tempfile
    from collections.abc import Iterator, Mapping, Sequence
    from dataclasses import asdict, dataclass
    from itertools import zip_longest
    from pathlib import Path
    from typing import TYPE_CHECKING, Any

    from nlproar import storage
    from nlproar.errors import UserError
    from nlproar.run import curve
    from nlproar.run.layout import Layout
    from nlproar.run.record import Record
    from nlproar.script import Parser, exit_codes
    from nlproar.study import cli
    from nlproar.study.status import look
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    import pandas as pd

    from nlproar.report.results import Results

ROOT = Path(__file__).parents[1]
_SCRIPT = "python experiments/doc_numbers.py"
_DIGITS = 6  # decimals that are kept of a value

# A marker, and the text up to its end. The text holds no other marker, so that a missing end is noticed.
_MARKED = re.compile(r"(<!-- (numbers?): ([^>]+?) -->)((?:(?!<!-- number).)*?)(<!-- end -->)", re.DOTALL)
_BEGIN = re.compile(r"<!-- numbers?:")
_INLINE_AT_BEGINNING = re.compile(r"^ *<!-- number:", re.MULTILINE)
_PART = re.compile(r"(\S+?)(?: of (.+?))?(?: where (.+))?")  # of a table: its name, columns, conditions
_FIELDS = ("score", "interval", "rank")
_NO_TABLES = ("scores", "ranks", "printed", "commands")  # views that are not tables of the report


@dataclass(frozen=True)
class Numbers:
    """What docs/numbers/NAME.json holds. The tables are lists of rows, and a value that does not exist is None."""

    commands: list[str]  # what makes the study
    date: str  # the day on which the records were collected
    made_with: list[str]  # the versions of the package and of torch, as the records tell them
    runs: int
    seeds: list[int]
    low_is_good: list[str]  # metrics of which a low score is the better one
    printed: list[str]  # the lines that the commands print when they are done
    scores: list[dict[str, Any]]  # in numbers, see `agreement.summary`
    tables: dict[str, list[dict[str, str]]]  # in words, as the report shows them, see `_tables`
    figures: dict[str, dict[str, str]]  # by path in the repository: the picture of the report, and the file's sha256
    metric_shown: str | None = None  # the test metric of curves and RACU; None for that of each task
    views: list[str] | None = None  # those that the file has what they need for; None for all


# From records to a file.


def collect(
    layout: Layout,
    commands: Sequence[str],
    figures: dict[str, str],
    metric_shown: str | None = None,
    views: Sequence[str] | None = None,
) -> Numbers:
    """Return the numbers of a study from its records, as the report computes them.

    `figures` names pictures of the report by the files in the repository that they are written to. With `views` only
    what these need is kept. Raises UserError if a run of the study is not done, does not have the test metric
    `metric_shown`, or if there is nothing to see in one of the views.
    """
    from nlproar.report import frame, results

    records: dict[str, Record] = {}
    printed = []
    for command in commands:
        of_command = _records(layout, command)
        records |= of_command
        printed += curve.of_study(of_command.values(), {int(one.identity["seed"]) for one in of_command.values()})
    studies = frame.of_runs(frame.load([layout], metric_shown).studies, records)
    for study in studies:
        if metric_shown not in (None, study.metric):
            raise UserError(f"--metric-shown {metric_shown}: not all records of {study.label} have it")
    reported = results.collect(frame.Found(studies, {}), "cpu", None)
    known = reported.scores.dropna(subset=["score"])
    turned = known.loc[known["faithful"] != known["score"], "metric"]
    seeds = sorted({seed for study in studies for seed in study.seeds})
    tables = _tables(reported)
    scores = _rows(reported.agreement)
    lines = "\n\n".join(printed).splitlines()
    if views is not None:
        _check_views(views, tables)
        tables = {name: table for name, table in tables.items() if name in views}
        scores = scores if {"scores", "ranks"} & set(views) else []
        lines = lines if "printed" in views else []
    return Numbers(
        commands=list(commands),
        date=datetime.date.today().isoformat(),
        made_with=sorted({_made_with(one) for one in records.values()}),
        runs=len(records),
        seeds=seeds,
        low_is_good=list(dict.fromkeys(turned)),
        printed=lines,
        scores=scores,
        tables=tables,
        figures=_draw(reported, figures),
        metric_shown=metric_shown,
        views=None if views is None else list(views),
    )


def _check_views(views: Sequence[str], tables: Mapping[str, Any]) -> None:
    """Raise UserError for a view that does not exist, or that would be empty."""
    known = [*_NO_TABLES, *tables]
    for view in views:
        if view not in known:
            raise UserError(f"--view {view}: there is nothing to see in it; choose from {', '.join(known)}")


def _records(layout: Layout, command: str) -> dict[str, Record]:
    """Return the records of all runs of a study, by id. Raises UserError if one is missing."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--command {command!r}: a shell cannot read it ({error})") from error
    if words[:2] != ["nlproar", "study"]:
        raise UserError(f"--command {command!r}: this is not a study; begin it with nlproar study")
    grid, _ = cli.parse(__doc__, [*words[2:], "--persistent-dir", str(layout.root)])
    chains = grid.chains()
    runs = {config for chain in chains for config in chain.configs}
    status = look(layout, chains)
    if status.failures:
        raise UserError(next(iter(status.failures.values())))
    if len(status.records) < len(runs):
        raise UserError(
            f"{len(runs) - len(status.records)} of {len(runs)} runs are not done in {layout.root}; carry out: {command}"
        )
    return {config.id: one for config, one in status.records.items()}


def _made_with(one: Record) -> str:
    versions = one.environment["versions"]
    return f"nlproar {versions['nlproar']} and torch {versions['torch']}"


def _rows(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON can hold them."""
    rounded = found.round(_DIGITS)
    return list(json.loads(rounded.to_json(orient="records", double_precision=_DIGITS)))


def _tables(reported: Results) -> dict[str, list[dict[str, str]]]:
    """Return the tables that are kept of a report, without the column of tasks where there is one task only."""
    from nlproar.report import tables

    has_curves = not reported.points["k"].isin([0, 100]).all()  # and not only the runs that all measures share
    found = {}
    for name, table in tables.to_read(reported).items():
        is_kept = name in _ABOUT or name in _BY_THEMSELVES
        if not is_kept or table.empty or (name.startswith("curves_") and not has_curves):
            continue
        dropped = ["meaning"]  # docs/trust.md says what a verdict means
        if len(reported.studies) == 1:
            dropped.append("task")
        kept = table.drop(columns=dropped, errors="ignore")
        found[name] = kept.astype(str).to_dict("records")
    return found


def _draw(reported: Results, wanted: dict[str, str]) -> dict[str, dict[str, str]]:
    """Write the pictures that are wanted, by the path of their file, and return their names and checksums."""
    from nlproar.report import agreement, figures, panels

    if not wanted:
        return {}
    pictures = [*panels.curves(reported.points, reported.studies), agreement.picture(reported.agreement)]
    by_name = {picture.name: picture for picture in pictures if picture is not None}
    found = {}
    for path, name in wanted.items():
        if name not in by_name:
            raise UserError(f"--figure {name}={path}: there is no such picture; choose from {', '.join(by_name)}")
        with tempfile.TemporaryDirectory() as folder:
            figures.save(by_name[name], Path(folder))
            content = (Path(folder) / f"{name}.png").read_bytes()
        with storage.whole_file(ROOT / path) as file:
            file.write(content)
        found[path] = {"picture": name, "sha256": hashlib.sha256(content).hexdigest()}
    return found


def file_of(name: str) -> Path:
    """Return where the numbers of a study are kept."""
    return ROOT / "docs" / "numbers" / f"{name}.json"


def save(name: str, numbers: Numbers) -> Path:
    """Write the numbers of a study with one line for each row of a table, so that a diff shows which rows change."""
    text = json.dumps(asdict(numbers), indent=1, ensure_ascii=False)
    rows_on_lines = re.sub(r"\{[^{}]*\}", lambda row: re.sub(r"\n *", " ", row.group()), text)
    path = file_of(name)
    with storage.whole_file(path) as file:
        file.write(f"{rows_on_lines}\n".encode())
    return path


def load(name: str) -> Numbers:
    """Return the numbers of a study. Raises UserError if there is no such file, or if it is damaged."""
    path = file_of(name)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none"
        raise UserError(f"there are no numbers {name!r}; there are {known}; make them by: {_SCRIPT} collect")
    try:
        return Numbers(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:  # no JSON, or other fields
        raise UserError(f"{path.relative_to(ROOT)} is damaged ({error}); put it back, or collect it again") from error


# From a file to a text.


def render(marker: str, words: str) -> str:
    """Return what stands between a marker and its end. `marker` is "number" or "numbers", `words` are the rest of it.

    Raises UserError for what there is not.
    """
    if marker == "number":
        parts = [part.strip() for part in words.split("|")]
        if len(parts) != 4:
            raise UserError("a number has a name, a metric, a measure and a field, with | between them")
        name, metric, measure, field = parts
        return _number(load(name), metric, measure, field)
    name, _, view = words.partition(" ")
    return f"\n\n{_view(load(name), view)}\n\n"


def _view(numbers: Numbers, view: str) -> str:
    """Return what a view shows, without an empty line at its ends."""
    if view == "section":
        return _section(numbers)
    if view == "commands":
        return _commands(numbers)
    if view == "printed":
        return "\n".join(["```", *numbers.printed, "```"])
    part = _PART.fullmatch(view)
    if part is None:
        return _markdown(_table(numbers, view))
    name, columns, conditions = part.groups()
    rows = _table(numbers, name)
    if conditions is not None:
        known = "|".join(map(re.escape, rows[0]))
        for condition in re.split(rf" and (?=(?:{known}) is )", conditions):
            column, _, values = condition.partition(" is ")
            rows = _rows_with(rows, column, values.split(" or "))
    if columns is not None:
        rows = _columns_of(rows, columns.split(", "))
    return _markdown(rows)


def _table(numbers: Numbers, view: str) -> list[dict[str, str]]:
    """Return the rows of a view that is a table. Raises UserError if there is no such view."""
    tables = {"scores": _by_metric(numbers, "scores"), "ranks": _by_metric(numbers, "ranks"), **numbers.tables}
    if not tables.get(view):
        there = [name for name, rows in tables.items() if rows]
        known = ["section", "printed", "commands", *there]
        raise UserError(f"there is no view {view!r}; choose from {', '.join(known)}")
    return tables[view]


def _rows_with(rows: list[dict[str, str]], column: str, values: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows that have one of `values` in a column. Raises UserError if no row has."""
    _check_column(rows, column)
    found = [row for row in rows if row[column] in values]
    if not found:
        raise UserError(f"no row has {' or '.join(values)} in the column {column!r}")
    return found


def _columns_of(rows: list[dict[str, str]], columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows with some of their columns. Raises UserError for a column that is not there."""
    for column in columns:
        _check_column(rows, column)
    return [{column: row[column] for column in columns} for row in rows]


def _check_column(rows: list[dict[str, str]], column: str) -> None:
    """Raise UserError for a column that is not there."""
    if column not in rows[0]:
        raise UserError(f"there is no column {column!r}; choose from {', '.join(rows[0])}")


def _commands(numbers: Numbers) -> str:
    """Return what makes the study, for a shell."""
    return "\n".join(["```bash", *map(_wrapped, numbers.commands), "```"])


def _markdown(rows: list[dict[str, str]]) -> str:
    import pandas as pd

    from nlproar.report.formats import markdown

    return markdown(pd.DataFrame(rows)).strip()


def _number(numbers: Numbers, metric: str, measure: str, field: str) -> str:
    """Return one number of a sentence: "31.3", "26.1 to 36.5" or, of a rank, "2 of 5".

    It is a dash where there is no such number: the interval of a single seed, or what belongs to an undefined score.
    """
    from nlproar.report.formats import NOTHING, between, number

    of_metric = [row for row in numbers.scores if row["metric"] == metric]
    found = [row for row in of_metric if row["series"] == measure]
    if field not in _FIELDS:
        raise UserError(f"there is no field {field!r}; choose from {', '.join(_FIELDS)}")
    if len(found) != 1:
        raise UserError(f"{len(found)} scores are of this metric and this measure, where one should be")
    (row,) = found
    if field == "score":
        return number(row["score"])
    if field == "interval":
        return between(row["low"], row["high"])
    if row["rank"] is None:
        return NOTHING
    ranked = [one for one in of_metric if one["rank"] is not None]
    return f"{row['rank']:g} of {len(ranked)}"


def _by_metric(numbers: Numbers, what: str) -> list[dict[str, str]]:
    """Return a row for each measure with a column for each metric; `what` is "scores" or "ranks"."""
    from nlproar.report.formats import NOTHING, estimate

    metrics = list(dict.fromkeys(row["metric"] for row in numbers.scores))
    several = len({row["study"] for row in numbers.scores}) > 1
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in numbers.scores:
        first = {"task": row["study"]} if several else {}
        first["measure"] = f"`{row['series']}`"
        cells = rows.setdefault((row["study"], row["series"]), first | dict.fromkeys(metrics, NOTHING))
        if what == "scores":
            cells[row["metric"]] = estimate(row["score"], row["low"], row["high"])
        elif row["rank"] is not None:
            cells[row["metric"]] = f"{row['rank']:g}"
    return list(rows.values())


_ABOUT = {  # the scores and tables of a section, and what it says above each
    "scores": "Scores: the mean over seeds in per cent, with its 95 % t interval.",
    "ranks": "Ranks by these means. The most faithful measure has rank 1.",
    "agreement_taus": "Kendall's tau between metrics, of the measures that both have, with a 95 % bootstrap interval.",
    "agreement_cost": "Cost of each metric. What several metrics need, such as the unmasked model, counts for each.",
    "curves_quantile": "Test performance in per cent, with its 95 % t interval, by the share of masked"
    " tokens, or of masked words where the masking is by word.",
    "curves_count": "Test performance in per cent, with its 95 % t interval, by the number of masked tokens, or of"
    " masked words where the masking is by word.",
    "outside": "Test observations outside of the distribution that the model knows, in per cent, by the share of masked"
    " tokens.",
    "shift": "Shift of masked test observations in per cent, by the share of masked tokens: above 0 away from the"
    " middle of what the model knows, below 0 towards it.",
    "randomisation": "Rank correlation of importance with that of a model whose layers are randomised up to the one"
    " that is named, and with that of a model of another seed.",
}
# Tables that are kept as well, and are no part of a section, as they would make it long.
_BY_THEMSELVES = ("racu", "differences", "trust", "trust_truth", "trust_plan", "bias")


def _section(numbers: Numbers) -> str:
    """Return the commands, where the numbers come from, and every table below a sentence."""
    lines = [_commands(numbers), ""]
    seeds = "1 seed" if len(numbers.seeds) == 1 else f"{len(numbers.seeds)} seeds"
    made_with = "; ".join(numbers.made_with)
    lines.append(f"Collected on {numbers.date} from {numbers.runs} runs with {seeds}, made with {made_with}.")
    if numbers.metric_shown is not None:
        lines.append(f"The test metric is `{numbers.metric_shown}`.")
    first = ["scores", "ranks", "agreement_taus", "agreement_cost"]
    others = [name for name in numbers.tables if name in _ABOUT and name not in first]
    for name in [*first, *others]:
        if name in numbers.tables or (name in ("scores", "ranks") and numbers.scores):
            about = _ABOUT[name]
            if name == "scores" and numbers.low_is_good:
                about += f" A low score is the better one of: {', '.join(numbers.low_is_good)}."
            lines += ["", about, "", _view(numbers, name)]
    return "\n".join(lines)


def _wrapped(command: str) -> str:
    """Return a command on lines of up to 100 characters for a shell."""
    lines = [""]
    for piece in re.findall(r"--\S+ (?!--)\S+|\S+", command):  # a flag and its first value stay together
        if len(lines[-1]) + len(piece) > 97:
            lines.append("")
        lines[-1] = f"{lines[-1]} {piece}".strip()
    return " \\\n  ".join(lines)


def pages() -> list[Path]:
    """Return the texts that may have markers."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Place:
    """A marker in a text: where it is, and the text up to its end as it is and as it should be."""

    where: str  # page:line
    marker: str
    start: int  # of the text, in the characters of the page
    stop: int
    is_: str
    should_be: str


def places(page: Path) -> Iterator[Place]:
    """Yield the markers of a page. Raises UserError, with the line, for one that cannot be."""
    text = page.read_text(encoding="utf-8")
    found = {match.start(): match for match in _MARKED.finditer(text)}
    at_beginning = {match.end() - len("<!-- number:") for match in _INLINE_AT_BEGINNING.finditer(text)}
    for begin in _BEGIN.finditer(text):
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, begin.start()) + 1}"
        match = found.get(begin.start())
        if match is None:
            raise UserError(f"{where}: this marker has no end; write <!-- end --> behind what it marks")
        if begin.start() in at_beginning:
            raise UserError(f"{where}: Markdown does not read on behind a comment that begins a line; move the marker")
        opening, marker, words, marked, _ = match.groups()
        try:
            should_be = render(marker, words)
        except UserError as error:
            raise UserError(f"{where}: {opening}: {error}") from error
        yield Place(where, opening, match.start(4), match.end(4), marked, should_be)


def write() -> list[Path]:
    """Put the numbers of the files into the texts, and return the pages that have changed."""
    changed = []
    for page in pages():
        text = before = page.read_text(encoding="utf-8")
        for place in reversed(list(places(page))):  # from the last one, so that the others stay where they are
            text = text[: place.start] + place.should_be + text[place.stop :]
        if text != before:
            with storage.whole_file(page) as file:
                file.write(text.encode())
            changed.append(page)
    return changed


def differences() -> list[str]:
    """Return a sentence for each text and each figure that is not what its file says."""
    found = []
    shown = ""
    for page in pages():
        shown += page.read_text(encoding="utf-8")
        for place in places(page):
            if place.is_ != place.should_be:
                found.append(f"{place.where}: {place.marker}: {_first_difference(place.is_, place.should_be)}")
    for path in sorted((ROOT / "docs" / "numbers").glob("*.json")):
        name = path.relative_to(ROOT)
        if not re.search(rf"<!-- numbers?: {re.escape(path.stem)} ", shown):
            found.append(f"{name}: no page shows these numbers")
        for figure, facts in load(path.stem).figures.items():
            there = ROOT / figure
            content = there.read_bytes() if there.is_file() else b""
            if hashlib.sha256(content).hexdigest() != facts["sha256"]:
                found.append(f"{figure}: this is not the figure that collect drew together with {name}")
    return found


def _first_difference(is_: str, should_be: str) -> str:
    """Return the first line that differs, as it is and as the file has it."""
    for one, other in zip_longest(is_.splitlines(), should_be.splitlines(), fillvalue=""):
        if one != other:
            return f"the text has {one!r}, and the file {other!r}"
    return "the text has other line breaks than the file"


# The command line.


def _parser() -> Parser:
    found = Parser(__doc__)
    commands = found.add_subparsers(dest="what", required=True, metavar="collect|write|check")
    add = commands.add_parser("collect", description="From records to a file.").add_argument
    add("--name", required=True, help="of the file: docs/numbers/NAME.json")
    add("--persistent-dir", required=True, metavar="DIR", help="where the records are")
    add("--command", action="append", metavar="COMMAND", help="a study; may be given several times")
    about = "also draw a picture of the report, such as agreement=docs/sst_agreement.png; may be given several times"
    add("--figure", action="append", metavar="PICTURE=FILE", help=about)
    add("--metric-shown", metavar="METRIC", help="the test metric of curves and RACU (default: that of each task)")
    about = "keep what this view needs, and nothing that no view asks for; may be given several times"
    add("--view", action="append", metavar="VIEW", help=about)
    commands.add_parser("write", description="From the files into the texts.")
    commands.add_parser("check", description="Compare the texts with the files.")
    return found


def _collect(flags: argparse.Namespace) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", flags.name):
        raise UserError(f"--name {flags.name}: use lower-case letters, digits and hyphens only")
    before = load(flags.name) if file_of(flags.name).is_file() else None
    commands = flags.command or (before.commands if before else None)
    if not commands:
        raise UserError(f"--name {flags.name}: there is no such file yet; say what makes the study with --command")
    figures = {path: facts["picture"] for path, facts in before.figures.items()} if before else {}
    for asked in flags.figure or []:
        picture, is_sign, path = asked.partition("=")
        if not is_sign or not re.fullmatch(r"docs/[\w-]+\.png", path):
            raise UserError(f"--figure {asked}: name a picture and a file, as in agreement=docs/sst_agreement.png")
        figures[path] = picture
    shown = flags.metric_shown or (before.metric_shown if before else None)
    views = flags.view or (before.views if before else None)
    numbers = collect(Layout.at(flags.persistent_dir), commands, figures, shown, views)
    print(f"written: {save(flags.name, numbers).relative_to(ROOT)}")


def main(argv: list[str] | None = None) -> None:
    """Collect, write or check. Exits with 1 where a text is not what its file says."""
    with exit_codes("interrupted; what was written is whole"):
        flags = _parser().parse_args(argv)
        found: list[str] = []
        if flags.what == "collect":
            _collect(flags)
        elif flags.what == "write":
            for page in write():
                print(f"written: {page.relative_to(ROOT)}")
        else:
            found = differences()
            for sentence in found:
                print(sentence)
    if found:
        print(f"texts are put right by: {_SCRIPT} write; figures are drawn by collect", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
