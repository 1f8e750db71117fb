"""Notes of the report, each said once, with everything that it applies to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Note(NamedTuple):
    """One reason, as it was found at one place. A part of the place that does not matter is left empty."""

    text: str  # what there is to say, as a clause: "no record of k = 40 %"
    study: str
    masking: str = ""  # "Recursive ROAR"
    series: str = ""  # the name of a curve, or of a measure
    seed: int | None = None


def said_once(notes: Iterable[Note]) -> list[str]:
    """Return a line for each text, in the order in which they first occur: "PLACE; PLACE; ...: TEXT".

    A place is a study and a masking, with the series there and their seeds; series with the same seeds stand together:
    "SST, Recursive ROAR, random, gradient, seeds 0, 1; IMDB, ROAR, gradient, seed 0: no record of k = 40 %".
    """
    by_text: dict[str, list[Note]] = {}
    for note in notes:
        by_text.setdefault(note.text, []).append(note)
    return [f"{'; '.join(_places(same))}: {text}" for text, same in by_text.items()]


def _places(notes: Iterable[Note]) -> list[str]:
    """Return the places of notes with the same text, in words."""
    seeds: dict[tuple[str, str], dict[str, list[int]]] = {}
    for note in notes:
        series = seeds.setdefault((note.study, note.masking), {}).setdefault(note.series, [])
        if note.seed is not None and note.seed not in series:
            series.append(note.seed)
    places = []
    for (study, masking), by_series in seeds.items():
        alike: dict[tuple[int, ...], list[str]] = {}
        for name, of_series in by_series.items():
            alike.setdefault(tuple(sorted(of_series)), []).append(name)
        for of_these, names in alike.items():
            parts = [study, masking, ", ".join(names), _seeds(of_these)]
            places.append(", ".join(part for part in parts if part))
    return places


def _seeds(seeds: tuple[int, ...]) -> str:
    if not seeds:
        return ""
    noun = "seed" if len(seeds) == 1 else "seeds"
    return f"{noun} {', '.join(map(str, seeds))}"
