# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a recipe's own lines say of each of its values: the comments where it is set.

    latent_dim=64,  # values per latent [F3]

A comment stands at the end of the line, above it, or both; what is in brackets at its end says where
the value comes from: a source, and after it what there is to add. A section's comment holds for all
in it that have none; a function's docstring for all that it sets, such as those of a preset. Recipes
are read, not run: `get_config` and what it calls may assign and update keys of `config`, loop over
tuples of keys, and ask for the preset.
"""

import ast
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import io
import pathlib
import re
import tokenize
import types
from typing import Any

Path = tuple[str, ...]

_BRACKETS = re.compile(r"^(.*?)\s*\[([^\[\]]+)\]\.?\s*$", re.DOTALL)
_SECTIONS = ("dict", "ml_collections.ConfigDict")


@dataclasses.dataclass(frozen=True)
class Note:
    """What one line that sets a value says of it.

    Attributes:
        text: what it is, with its unit; "" where the line sets what another has explained.
        source: where it comes from, as it stands in the brackets; "" for none.
        place: file and line.
        is_own: False where the source is that of all that the function sets.
    """

    text: str
    source: str
    place: str
    is_own: bool = True


@dataclasses.dataclass(frozen=True)
class _Scope:
    """Where the reader is: the preset, what names stand for, and the note of the function."""

    preset: str
    names: dict[str, Any]
    default: Note | None


class Notes:
    """What a recipe says of the values of a preset."""

    def __init__(self):
        self._all: list[tuple[Path, Note]] = []

    def add(self, path: Path, note: Note) -> None:
        """Adds the note of a key; a "*" in its path stands for any name."""
        self._all.append((path, note))

    def of(self, path: Path) -> list[Note]:
        """The notes of a key in the order of setting; where it has none, that of its section."""
        own = [note for pattern, note in self._all if _fits(path, pattern)]
        above = [
            (len(pattern), index)
            for index, (pattern, note) in enumerate(self._all)
            if note.source and _fits(path[: len(pattern)], pattern)
        ]
        return own or ([self._all[max(above)[1]][1]] if above else [])

    def rank(self, path: Path) -> int:
        """Where the recipe first speaks of a key or of its section."""
        fits = (_fits(path[: len(pattern)], pattern) for pattern, _ in self._all)
        own = (_fits(path, pattern) for pattern, _ in self._all)
        return next(
            (index for index, fit in enumerate(own) if fit),
            next((index for index, fit in enumerate(fits) if fit), len(self._all)),
        )


def _fits(path: Path, pattern: Path) -> bool:
    if "*" not in pattern:
        return path == pattern
    return len(path) == len(pattern) and all(
        there in (here, "*") for here, there in zip(path, pattern)
    )


def read(recipe: types.ModuleType, preset: str) -> Notes:
    """Reads what a recipe says of the values of a preset.

    Raises:
        ValueError: for a line of the recipe that is not understood, with its place.
    """
    notes = Notes()
    _Reader(recipe, notes).call("get_config", preset)
    return notes


class _Reader:
    """One file, and the notes that it adds to."""

    def __init__(self, module: types.ModuleType, notes: Notes):
        self._module, self._notes = module, notes
        path = pathlib.Path(module.__file__)
        text = path.read_text(encoding="utf-8")
        self._file = f"{path.parent.name}/{path.name}"
        self._comments, self._alone = _comments(text)
        body = ast.parse(text).body
        self._functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self._constants = {
            target.id: node.value
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def call(self, function: str, preset: str, prefix: Path | None = None, group=None) -> None:
        """Reads what a function sets; with a prefix, what it returns as a section."""
        node = self._functions[function]
        said = _parse(ast.get_docstring(node) or "", self._place(node.lineno))
        default = dataclasses.replace(said, text="") if said and said.source else None
        scope = _Scope(preset, {}, default)
        for statement in self._taken(node.body, scope):
            if isinstance(statement, ast.Return) and prefix is not None:
                self._section(prefix, statement.value, scope, group)
            else:
                self._statement(statement, scope)

    def _taken(self, body: Sequence[ast.stmt], scope: _Scope) -> Iterator[ast.stmt]:
        """The statements that run for the preset, those of loops once for each of their items."""
        for node in body:
            if isinstance(node, ast.If):
                test = compile(ast.Expression(node.test), self._file, "eval")
                holds = eval(test, vars(self._module), {"preset": scope.preset})
                yield from self._taken(node.body if holds else node.orelse, scope)
            elif isinstance(node, ast.For):
                for item in self._items(node):
                    scope.names[node.target.id] = item
                    yield from self._taken(node.body, scope)
            else:
                yield node

    def _items(self, node: ast.For) -> Sequence[str]:
        try:
            return ast.literal_eval(node.iter)
        except ValueError:
            raise self._unclear(node, "loops over what is no tuple of keys") from None

    def _statement(self, node: ast.stmt, scope: _Scope) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                path = self._path(target, scope)
                if path:
                    self._set(path, node.value, node, scope, None)
                elif isinstance(node.value, ast.Call) and self._is_own(node.value):
                    self.call(node.value.func.id, scope.preset)
                elif isinstance(target, ast.Name):
                    scope.names[target.id] = node.value
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if self._is_own(call):
                self.call(call.func.id, scope.preset)
            elif isinstance(call.func, ast.Attribute) and call.func.attr == "update":
                path = self._path(call.func.value, scope)
                if path is None:
                    raise self._unclear(node, "updates what is not of `config`")
                self._section(path, call.args[0], scope, self._said(node))

    def _is_own(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Name) and call.func.id in self._functions

    def _path(self, node: ast.expr, scope: _Scope) -> Path | None:
        """The key that an expression such as config.optimizer[player] stands for; None for another."""
        if isinstance(node, ast.Name):
            return () if node.id == "config" else None
        if isinstance(node, ast.Attribute):
            before, name = self._path(node.value, scope), node.attr
        elif isinstance(node, ast.Subscript):
            before, name = self._path(node.value, scope), self._key(node.slice, scope)
        else:
            return None
        return None if before is None else (*before, name)

    def _key(self, node: ast.expr, scope: _Scope) -> str:
        name = scope.names.get(node.id) if isinstance(node, ast.Name) else None
        name = node.value if isinstance(node, ast.Constant) else name
        if not isinstance(name, str):
            raise self._unclear(node, "has a key that is no text")
        return name

    def _set(self, path: Path, value: ast.expr, node: Any, scope: _Scope, group) -> None:
        said = self._said(node)
        own = said if said and said.source else group
        note = own or said
        if note is None or not note.source:
            unsaid = note or Note("", "", self._place(node.lineno))
            source = scope.default.source if scope.default else ""
            note = dataclasses.replace(unsaid, source=source, is_own=False)
        self._notes.add(path, note)
        self._section(path, value, scope, own)

    def _section(self, path: Path, node: ast.expr, scope: _Scope, group: Note | None) -> None:
        """Reads the keys that an expression has, where it is a section; nothing of a plain value."""
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if key is None:
                    self._section(path, value, scope, group)
                else:
                    whole = ast.copy_location(ast.Pass(), key)
                    whole.end_lineno = value.end_lineno
                    self._set((*path, self._key(key, scope)), value, whole, scope, group)
        elif isinstance(node, ast.DictComp):
            self._section((*path, "*"), node.value, scope, group)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            self._section(path, node.left, scope, group)
            self._section(path, node.right, scope, group)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in _SECTIONS:
            for value in node.args:
                self._section(path, value, scope, group)
            for keyword in node.keywords:
                if keyword.arg is None:
                    said = self._said(keyword)
                    of_all = said if said and said.source else group
                    self._section(path, keyword.value, scope, of_all)
                else:
                    self._set((*path, keyword.arg), keyword.value, keyword, scope, group)
        elif isinstance(node, ast.Name) and isinstance(scope.names.get(node.id), ast.expr):
            self._section(path, scope.names[node.id], scope, group)
        else:
            self._elsewhere(path, node, scope, group)

    def _elsewhere(self, path: Path, node: ast.expr, scope: _Scope, group: Note | None) -> None:
        """A section that a function makes or a constant holds, here or in another file of recipes."""
        named = node.func if isinstance(node, ast.Call) else node
        reader, name = self, getattr(named, "id", "")
        if isinstance(named, ast.Attribute) and isinstance(named.value, ast.Name):
            module = getattr(self._module, named.value.id, None)
            if not isinstance(module, types.ModuleType) or not _is_recipe(module):
                return
            reader, name = _Reader(module, self._notes), named.attr
        if name == "get_config":  # of another recipe, which has its own page
            return
        if isinstance(node, ast.Call) and name in reader._functions:
            reader.call(name, scope.preset, path, group)
            for (
                given
            ) in node.keywords:  # what is given to the function may be a key of what it makes
                said = self._said(given)
                if given.arg and said and said.source:
                    self._notes.add((*path, given.arg), said)
        elif name in reader._constants:
            reader._section(path, reader._constants[name], scope, group)

    def _said(self, node: Any) -> Note | None:
        """The comment above a node's first line, at its end, or at the end of its last line."""
        lines, above = [], node.lineno - 1
        while above in self._alone:
            lines.insert(0, self._comments[above])
            above -= 1
        first_of_line = self._comments.get(node.lineno)
        at_end = self._comments.get(node.end_lineno) if first_of_line is None else first_of_line
        lines += [at_end] if at_end else []
        return _parse(" ".join(lines), self._place(node.lineno)) if lines else None

    def _place(self, line: int) -> str:
        return f"{self._file}:{line}"

    def _unclear(self, node: ast.AST, what: str) -> ValueError:
        return ValueError(
            f"{self._place(node.lineno)} {what}, and configs/comments.py cannot say which value of the "
            "recipe that is: write it as its neighbours are"
        )


def _parse(text: str, place: str) -> Note | None:
    if not text:
        return None
    match = _BRACKETS.match(text)
    if match is None:
        return Note(_flat(text), "", place)
    text = re.sub(r"(?<!\.)\.$", "", _flat(match.group(1)))
    return Note(text, _flat(match.group(2)), place)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _is_recipe(module: types.ModuleType) -> bool:
    return pathlib.Path(module.__file__ or "").parent == pathlib.Path(__file__).parent


@functools.cache
def _comments(text: str) -> tuple[dict[int, str], set[int]]:
    """Comments by line, without their mark; and the lines that hold nothing else."""
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            comments[line] = token.string.lstrip("#").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(line)
    return comments, alone
