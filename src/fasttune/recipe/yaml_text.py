"""Read and write YAML with plain values only; every error names its line.

Values follow the core schema of YAML 1.2, in which `no` is a word, `2e-5` a number and a date is text: the rules of
YAML 1.1, which PyYAML implements, would turn label names into booleans. Keys are text as written (`01` stays `01`).
Tags (they name Python objects), aliases (they expand), duplicate keys and tabs are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.reader import ReaderError

from fasttune.errors import Problem, require_safe, shown

INTEGER = re.compile(r"[-+]?[0-9]{1,64}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.?[0-9]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS: dict[str, object] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
STRING_TAG = "tag:yaml.org,2002:str"


def plain_value(text: str) -> object:
    """The value of an unquoted word: None, a boolean, a number, or else the word itself."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Reader(yaml.SafeLoader):
    """Builds plain values without PyYAML's own type rules, and collects problems instead of raising the first."""

    def __init__(self, text: str, name: str):
        super().__init__(text)
        self.file_name = name
        self.refused: list[tuple[int, Problem]] = []

    def refuse(self, code: str, event: Any, found: str, hint: str) -> None:
        line = event.start_mark.line + 1
        where = f"{self.file_name}:{line}"
        self.refused.append((line, Problem(code=code, where=where, found=found, hint=hint)))

    @property
    def problems(self) -> list[Problem]:
        """In the order of their lines: keys are checked only after the whole text was parsed."""
        return [problem for _, problem in sorted(self.refused, key=lambda entry: entry[0])]

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            hint = f"write the value itself, or quote it if it begins with a star: '*{event.anchor}'"
            self.refuse("E308", event, f"the alias *{event.anchor} is not allowed", hint)
            # The type stub does not allow for marks of the C reader.
            return yaml.ScalarNode(STRING_TAG, "", event.start_mark, event.end_mark)  # type: ignore[arg-type]
        tag = getattr(event, "tag", None)
        if tag is not None:
            hint = "write the plain value without a tag; quote it if it begins with '!'"
            self.refuse("E305", event, f"the tag {shown(tag)} is not allowed", hint)
            event.tag = None
            if isinstance(event, yaml.ScalarEvent):
                event.implicit = (True, True)
        node = super().compose_node(parent, index)
        assert node is not None  # PyYAML returns None only for an alias
        return node

    def value(self, node: yaml.Node | None) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child) for child in node.value]
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style is not None else plain_value(node.value)
        return None  # an empty document

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse("E312", key_node, "a list or a table is used as a name", "write a word before the colon")
                continue
            key = key_node.value
            if key in values:
                found = f"the name {shown(key)} already appears in line {lines[key]}"
                self.refuse("E307", key_node, found, "remove one of the two")
                continue
            values[key] = self.value(value_node)
            lines[key] = key_node.start_mark.line + 1
        return values


def read(text: str, name: str) -> tuple[Any, list[Problem]]:
    """The value of a YAML text, and its problems. `name` is the file or other source that the problems name."""
    require_safe("PyYAML")
    try:
        reader = _Reader(text, name)
    except yaml.YAMLError as error:
        return None, [_syntax_problem(error, text, name)]
    try:
        value = reader.value(reader.get_single_node())
        return value, reader.problems
    except yaml.YAMLError as error:
        return None, [*reader.problems, _syntax_problem(error, text, name)]
    except RecursionError:
        return None, [Problem(code="E312", where=name, found="too many nested levels")]
    finally:
        reader.dispose()


def _syntax_problem(error: yaml.YAMLError, text: str, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    # Split lines as YAML does: Python's splitlines knows more line ends, which would shift the numbers.
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
    last = mark.line + 1 if mark else len(lines)
    tabs = [number for number, line in enumerate(lines[:last], 1) if re.match(r"[ ]*\t", line)]
    if not tabs and "'\\t'" in (getattr(error, "problem", None) or ""):
        tabs = [last]
    if tabs:
        where = f"{name}:{tabs[0]}"
        found = "a tab" if len(tabs) == 1 else f"tabs (lines {', '.join(map(str, tabs[:8]))})"
        return Problem(
            code="E306", where=where, found=found, expected="spaces", hint="indent with two spaces per level"
        )
    if isinstance(error, ReaderError):
        character = shown(chr(error.character)) if isinstance(error.character, int) else error.character
        return Problem(code="E312", where=name, found=f"the character {character} is not allowed in YAML")
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    details = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    found = f"invalid YAML ({details})" if details else "invalid YAML"
    hint = "quote values that contain ': ' or ' #', or begin with one of @ ` % & * ! | > [ {"
    return Problem(code="E312", where=where, found=found, hint=hint)


class _Writer(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as another type, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(writer: _Writer, text: str) -> yaml.Node:
    # PyYAML folds line ends such as U+0085 and U+2028 into spaces unless they are escaped.
    return writer.represent_scalar(STRING_TAG, text, style=None if text.isprintable() else '"')


_Writer.add_representer(str, _write_text)
for _character in "+-.0123456789":
    _Writer.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), [_character])
    _Writer.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"(?:{INTEGER.pattern})$"), [_character])


def write(value: Any) -> str:
    """YAML in block style, with keys in the order given; `read` returns the same value."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)


def write_inline(value: Any) -> str:
    """YAML on one line, for a hint."""
    text = yaml.dump(value, Dumper=_Writer, sort_keys=False, default_flow_style=True, allow_unicode=True, width=2**20)
    return text.removesuffix("\n").removesuffix("\n...")
