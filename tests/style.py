"""How dense the code is: `python -m tests.style [FOLDER ...]` prints a row for each folder of Python files.

The numbers are a mirror to look into, not a limit: long files of plain lines read better than short, packed ones.

- lines of a file and of a function: median and maximum, or median and 90th percentile. Blank lines count.
- public docstrings: the share of public modules, classes and functions that have one. A name is public if no part of
  it begins with an underscore; an overload, a property setter and a test count like any other function.
- comments per 100 lines, without docstrings.
- code tokens a line: names, operators, numbers and strings on a line that holds code, without comments and docstrings.
- clever expressions per 100 lines: comprehensions and generator expressions, conditional expressions, lambdas
  and assignment expressions.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

_CLEVER = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp, ast.Lambda, ast.NamedExpr)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


class Style(NamedTuple):
    """Counts of one file, or the sums of several."""

    file_lines: list[int]
    function_lines: list[int]
    public: int
    documented: int
    comments: int
    code_tokens: int
    code_lines: int
    clever: int


def of_file(path: Path) -> Style:
    """Count one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    nodes = _public_nodes(tree, path.stem)
    tokens, lines, comments = _tokens(text, _docstring_lines(tree))
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    return Style(
        file_lines=[text.count("\n")],
        function_lines=[int(node.end_lineno or 0) - node.lineno + 1 for node in functions],
        public=len(nodes),
        documented=sum(ast.get_docstring(node) is not None for node in nodes),
        comments=comments,
        code_tokens=tokens,
        code_lines=lines,
        clever=sum(isinstance(node, _CLEVER) for node in ast.walk(tree)),
    )


def _public_nodes(tree: ast.Module, module: str) -> list[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """Return the module, classes and functions that are public; what stands inside a function is not."""
    found: list = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, _DOCUMENTED):
            name = module if isinstance(node, ast.Module) else node.name
            if name.startswith("_") and not name.startswith("__"):
                return
            if not name.startswith("__") or isinstance(node, ast.Module):
                found.append(node)
            if isinstance(node, _FUNCTIONS):
                return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def _docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            first = node.body[0]
            lines |= set(range(first.lineno, int(first.end_lineno or first.lineno) + 1))
    return lines


def _tokens(text: str, docstrings: set[int]) -> tuple[int, int, int]:
    """Return code tokens, lines that hold code, and comments."""
    code, comments = 0, 0
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        if token.type not in _NO_CODE and token.start[0] not in docstrings:
            code += 1
            lines.add(token.start[0])
    return code, len(lines), comments


def of_folder(folder: Path) -> Style:
    """Add up all Python files below a folder."""
    counts = [of_file(path) for path in sorted(folder.rglob("*.py"))]
    return Style(
        file_lines=[n for one in counts for n in one.file_lines],
        function_lines=[n for one in counts for n in one.function_lines],
        public=sum(one.public for one in counts),
        documented=sum(one.documented for one in counts),
        comments=sum(one.comments for one in counts),
        code_tokens=sum(one.code_tokens for one in counts),
        code_lines=sum(one.code_lines for one in counts),
        clever=sum(one.clever for one in counts),
    )


def row(name: str, style: Style) -> str:
    """Return a row of the table, in Markdown."""
    ninth = quantiles(style.function_lines, n=10)[-1]
    lines = sum(style.file_lines)
    cells = [
        name,
        f"{median(style.file_lines):.0f} / {max(style.file_lines)}",
        f"{median(style.function_lines):.0f} / {ninth:.0f}",
        f"{100 * style.documented / style.public:.0f} %",
        f"{100 * style.comments / lines:.1f}",
        f"{style.code_tokens / style.code_lines:.1f}",
        f"{100 * style.clever / lines:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(folders: list[str]) -> None:
    """Print the table for these folders, by default for the package."""
    titles = ("folder", "lines a file: median / max", "lines a function: median / p90", "public docstrings",
              "comments per 100 lines", "code tokens a line", "clever expressions per 100 lines")  # fmt: skip
    print("| " + " | ".join(titles) + " |")
    print("|" + " --- |" * len(titles))
    for name in folders or ["nlproar"]:
        print(row(name, of_folder(Path(name))))


if __name__ == "__main__":
    main(sys.argv[1:])
