"""How many records of the raw files were read, and what became of those that are no observation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_NO_NAME = ""  # stands for all values that are none
_LONGEST_NAME = 30
_SHOWN = 20  # values of a column that a message shows at most
_NAME = re.compile(r"[^\W\d][^\W\d]*([ /_-]{1,3}[^\W\d]+){0,2} *")  # a name of one to three words


@dataclass
class Tally:
    """Counts that a reader keeps while it reads.

    `read` has the number of records of each file, `dropped` the number of records that were left out for each
    (split, reason), where the split is "" if it is not known yet, and `notes` has further sentences for the record.
    """

    read: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, split: str = "", number: int = 1) -> None:
        """Count observations that were left out, by the reason."""
        self.dropped[split, reason] += number

    def saw(self, column: str, value: str) -> None:
        """Count a value of a column of few values, such as the category of a note."""
        counts = self.values.setdefault(column, Counter())
        if value not in counts and (len(value) > _LONGEST_NAME or len(counts) > 1000):
            value = _NO_NAME  # a column of texts must not fill the memory
        counts[value] += 1

    def summary(self, split: str, records: str) -> str:
        """What was read and what was left out of `split`, for the message that too little is left."""
        read = ", ".join(f"{number:,} of {name}" for name, number in sorted(self.read.items()))
        seen = [f"{column} was {_names(counts)}" for column, counts in self.values.items()]
        parts = [f"{records} read: {read or 'none'}", self.left_out(split), *seen]
        return "; ".join(parts)

    def left_out(self, split: str) -> str:
        """What was left out of `split`, and why."""
        reasons = [
            f"{number:,} {reason}" for (where, reason), number in self.dropped.most_common() if where in ("", split)
        ]
        return f"left out: {', '.join(reasons) or 'none'}"

    def warnings(self, published: Mapping[str, int], records: str) -> list[str]:
        """A sentence for each file of which another number of records was read than was published, and the notes."""
        counts = [
            f"{name} has {self.read[name]:,} {records}, but {number:,} were published"
            for name, number in published.items()
            if self.read[name] != number
        ]
        return counts + self.notes


def _names(counts: Mapping[str, int]) -> str:
    """The values of a column with their counts, if they are names that occur more than once. Other values are counted
    but not shown, as a damaged table may have a confidential text in any column."""
    names = {value: number for value, number in counts.items() if number > 1 and _NAME.fullmatch(value)}
    shown = sorted(names, key=lambda name: -names[name])[:_SHOWN]
    parts = [f"{name.strip()!r} {names[name]:,} times" for name in shown]
    others = sum(counts.values()) - sum(names[name] for name in shown)
    if others:
        parts.append(f"something else {others:,} times")
    return ", ".join(parts)
