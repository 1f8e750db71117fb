"""CPU seconds of the same curves by masked fine-tuning and by Recursive ROAR: two studies of one seed.

Each has a persistent directory of its own, which is removed afterwards; raw files come from that of --persistent-dir.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.dataset import TASKS
    from nlproar.errors import UserError
    from nlproar.explain import MEASURES
    from nlproar.flags import add_flags
    from nlproar.paths import user_path
    from nlproar.run.config import Options, all_but
    from nlproar.run.layout import Layout
    from nlproar.script import Parser, exit_codes
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

METRICS = ("masked-fine-tuning", "roar")
PUBLISHED = [name for name, measure in MEASURES.items() if measure.published]


def main() -> None:
    """Run both studies, and print what they took and the ratio."""
    with exit_codes("interrupted; nothing is kept"):
        parser = Parser(__doc__)
        parser.add_argument("--dataset", choices=tuple(TASKS), default="sst", help="the task (default: sst)")
        parser.add_argument("--source", default="official", help="where the data come from (default: official)")
        add_flags(parser, Options, without=all_but("persistent_dir"))
        parser.add_argument("--vectors", metavar="FILE", help="word vectors (default: those of the task)")
        parser.add_argument("--step", type=int, default=10, help="distance of the levels in per cent (default: 10)")
        parser.add_argument("--max-k", type=int, default=90, help="the highest level in per cent (default: 90)")
        parser.add_argument(
            "--importance-measure",
            nargs="+",
            choices=tuple(MEASURES),
            default=PUBLISHED,
            help="the measures (default: those of the paper)",
        )
        flags = parser.parse_args()
        raw = Layout.at(getattr(flags, "persistent_dir", None)).raw.resolve()
        raw.mkdir(parents=True, exist_ok=True)  # what is downloaded there is used by both studies
        words = ["--dataset", flags.dataset, "--source", flags.source, "--recursive", "--step", str(flags.step)]
        words += ["--max-k", str(flags.max_k), "--importance-measure", *flags.importance_measure]
        if flags.vectors is not None:
            words += ["--vectors", str(Path(user_path("--vectors", flags.vectors)).resolve())]
        seconds = {}
        for metric in METRICS:
            seconds[metric] = cpu_seconds([*words, "--metric", metric], raw)
            print(f"{metric}: {seconds[metric]:.0f} CPU seconds", flush=True)
        first, second = METRICS
        print(f"{first} takes {seconds[first] / seconds[second]:.3f} of the CPU seconds of {second}")


def cpu_seconds(words: list[str], raw: Path) -> float:
    """Return the CPU seconds of a study with these flags, in a persistent directory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(raw, Path(folder) / "raw")
        before = used_by_children()
        command = [sys.executable, "-m", "nlproar", "study", "--persistent-dir", folder, *words]
        done = subprocess.run(command, stdout=sys.stderr)
        if done.returncode != 0:
            raise UserError(f"the study ended with {done.returncode}; its messages stand above")
        return used_by_children() - before


def used_by_children() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
