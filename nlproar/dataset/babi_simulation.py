"""A small world of people, places and objects that writes bAbI questions 1-3 in the official format.

People walk, take and drop; now and then somebody asks. Task 1 asks where a person is (the last move decides), task 2
where an object is (who took or dropped it, and where that person went), task 3 where it was before a place (and the
two moves around it). Needs no file and no network, and uses the words of the official files only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

QUESTIONS = {"train": 10_000, "test": 1_000}
QUESTIONS_PER_STORY = 5
WORLD_SEED = 0  # fixed: the simulated data are one data set, whatever the seed of a run

PEOPLE = ("Mary", "John", "Daniel", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
MOVE = ("moved to", "went to", "went back to", "journeyed to", "travelled to")
TAKE = ("got", "took", "grabbed", "picked up")
DROP = ("dropped", "discarded", "left", "put down")


@dataclass
class Thing:
    """What the story has said of a person or an object. A line number supports each fact."""

    visited: list[tuple[str, int]] = field(default_factory=list)  # place, the line that says so
    holder: str | None = None
    handled: int = 0  # the line of the last taking or dropping; 0 for none


class Story:
    """One story: `tell` adds a statement, `ask` a question if the story so far answers one."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number, self.rng = number, rng
        self.lines: list[str] = []
        self.people = {name: Thing() for name in PEOPLE}
        self.objects = {name: Thing() for name in OBJECTS} if number > 1 else {}
        self.hidden = {name: rng.choice(PLACES) for name in (*PEOPLE, *self.objects)}  # true places, told or not

    def _say(self, text: str) -> int:
        self.lines.append(f"{len(self.lines) + 1} {text}")
        return len(self.lines)

    def tell(self) -> None:
        """Add one sentence to the story: somebody moves, or takes or drops a thing."""
        person = self.rng.choice(PEOPLE)
        held = [name for name, thing in self.objects.items() if thing.holder == person]
        near = [
            name
            for name, thing in self.objects.items()
            if thing.holder is None and self.hidden[name] == self.hidden[person]
        ]
        if near and self.rng.random() < 0.7:
            self._take(person, self.rng.choice(near))
        elif held and self.rng.random() < 0.25:
            self._drop(person, self.rng.choice(held))
        else:
            self._move(person, held)

    def _move(self, person: str, held: list[str]) -> None:
        place = self.rng.choice([name for name in PLACES if name != self.hidden[person]])
        line = self._say(f"{person} {self.rng.choice(MOVE)} the {place}.")
        self.people[person].visited.append((place, line))
        for name in (person, *held):
            self.hidden[name] = place
        for name in held:
            self.objects[name].visited.append((place, line))

    def _take(self, person: str, name: str) -> None:
        thing, told = self.objects[name], self.people[person].visited
        thing.handled = self._say(f"{person} {self.rng.choice(TAKE)} the {name}{self._there()}.")
        thing.holder = person
        if told and not thing.visited:
            thing.visited.append(told[-1])

    def _drop(self, person: str, name: str) -> None:
        thing = self.objects[name]
        thing.handled = self._say(f"{person} {self.rng.choice(DROP)} the {name}{self._there()}.")
        thing.holder = None

    def _there(self) -> str:
        return self.rng.choice(("", " there"))

    def ask(self) -> bool:
        """Ask one answerable question of this task; False, and nothing said, if there is none."""
        options = [question for name in self._askable() if (question := self._question(name))]
        if not options:
            return False
        text, answer, support = self.rng.choice(options)
        self._say(f"{text} \t{answer}\t{' '.join(map(str, support))}")
        return True

    def _askable(self) -> tuple[str, ...]:
        return PEOPLE if self.number == 1 else OBJECTS

    def _question(self, name: str) -> tuple[str, str, list[int]] | None:
        if self.number == 1:
            visited = self.people[name].visited
            return (f"Where is {name}?", visited[-1][0], [visited[-1][1]]) if visited else None
        thing = self.objects[name]
        if self.number == 2:
            if not thing.handled or not thing.visited:
                return None
            place, line = thing.visited[-1]
            return f"Where is the {name}?", place, [thing.handled, line]
        places = [place for place, _ in thing.visited]
        after = [i for i in range(1, len(places)) if places.count(places[i]) == 1]
        if not after:  # a place visited twice has two answers
            return None
        i = after[-1]
        support = [thing.handled, thing.visited[i][1], thing.visited[i - 1][1]]
        return f"Where was the {name} before the {places[i]}?", places[i - 1], support


def write(number: int, part: str) -> str:
    """The file of task `number` (1, 2 or 3), `part` "train" or "test". The same text at every call."""
    rng = random.Random(f"{WORLD_SEED} {number} {part}")
    stories, asked = [], 0
    while asked < QUESTIONS[part]:
        story = Story(number, rng)
        for _ in range(QUESTIONS_PER_STORY):
            for _ in range(rng.randint(2, 2 * number)):
                story.tell()
            while not story.ask():
                story.tell()
            asked += 1
        stories.append("\n".join(story.lines))
    return "\n".join(stories) + "\n"
