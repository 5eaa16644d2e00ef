"""YAML in and out: plain values only, every mistake with its line.

Reads the core of YAML 1.2, in which `no` is a word, `2e-5` a number and a date is text, because the rules of 1.1 that
PyYAML follows turn label names into truth values. Keys are text as written (`01` stays `01`). Refuses tags (they name
Python objects), aliases (they expand), keys that stand twice and tabs; it never guesses what was meant.
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
    """What an unquoted word means: nothing, a truth value, a number, or else the word itself."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Reader(yaml.SafeLoader):
    """Builds plain values itself, so that nothing of PyYAML's own choice of types is left; collects what is refused."""

    def __init__(self, text: str, name: str):
        super().__init__(text)
        self.file_name = name
        self.refused: list[tuple[int, Problem]] = []

    def refuse(self, code: str, event: Any, found: str, expected: str, hint: str) -> None:
        line = event.start_mark.line + 1
        where = f"{self.file_name}:{line}"
        self.refused.append((line, Problem(code=code, where=where, found=found, expected=expected, hint=hint)))

    @property
    def problems(self) -> list[Problem]:
        """In the order of the lines: keys are looked at after the whole text was."""
        return [problem for _, problem in sorted(self.refused, key=lambda entry: entry[0])]

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self.get_event()
            hint = f"write the value out, or put it in quotes where it begins with a star: '*{event.anchor}'"
            self.refuse("E308", event, f"the alias *{event.anchor}", "the value itself", hint)
            # The type stub forgets that a mark may come from the C reader.
            return yaml.ScalarNode(STRING_TAG, "", event.start_mark, event.end_mark)  # type: ignore[arg-type]
        tag = getattr(event, "tag", None)
        if tag is not None:
            hint = "leave the tag out; write the plain value, in quotes where it begins with '!'"
            self.refuse("E305", event, f"the tag {shown(tag)}", "a plain value; tags are not allowed", hint)
            event.tag = None
            if isinstance(event, yaml.ScalarEvent):
                event.implicit = (True, True)
        node = super().compose_node(parent, index)
        assert node is not None  # PyYAML returns None for an alias only
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
        read: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(
                    "E312", key_node, "a list or a table as a name", "a word", "write one word before the colon"
                )
                continue
            key = key_node.value
            if key in read:
                hint = f"leave one of the two out; the other is in line {lines[key]}"
                self.refuse("E307", key_node, f"the name {shown(key)} a second time", "each name once", hint)
                continue
            read[key], lines[key] = self.value(value_node), key_node.start_mark.line + 1
        return read


def read(text: str, name: str) -> tuple[Any, list[Problem]]:
    """The value of a YAML text, and what is wrong with it; `name` is where it came from."""
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
        expected = "a few levels of sections and lists"
        return None, [Problem(code="E312", where=name, found="too many nested levels", expected=expected)]
    finally:
        reader.dispose()


def _syntax_problem(error: yaml.YAMLError, text: str, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    # Split as YAML does: other characters that Python takes for line ends must not shift the numbers.
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
    last = mark.line + 1 if mark else len(lines)
    tabs = [number for number, line in enumerate(lines[:last], 1) if re.match(r"[ ]*\t", line)]
    if not tabs and "'\\t'" in (getattr(error, "problem", None) or ""):
        tabs = [last]
    if tabs:
        place = f"{name}:{tabs[0]}"
        found = "a tab" if len(tabs) == 1 else f"tabs (lines {', '.join(map(str, tabs[:8]))})"
        return Problem(code="E306", where=place, found=found, expected="spaces", hint="indent with two spaces a level")
    if isinstance(error, ReaderError):
        found = f"the character {shown(chr(error.character)) if isinstance(error.character, int) else error.character}"
        return Problem(code="E312", where=name, found=found, expected="text that can be printed")
    place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    said = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    found = f"text that is not YAML ({said})" if said else "text that is not YAML"
    hint = "a value that holds ': ' or ' #', or begins with one of @ ` % & * ! | > [ {, goes in quotes"
    return Problem(code="E312", where=place, found=found, expected="lines such as 'name: value'", hint=hint)


class _Writer(yaml.SafeDumper):
    """Quotes every word that either version of YAML would take for something else than text; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(writer: _Writer, text: str) -> yaml.Node:
    # PyYAML folds odd line ends (U+0085, U+2028) into spaces unless they are escaped.
    return writer.represent_scalar(STRING_TAG, text, style=None if text.isprintable() else '"')


_Writer.add_representer(str, _write_text)
for _first in "+-.0123456789":
    _Writer.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), [_first])
    _Writer.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"(?:{INTEGER.pattern})$"), [_first])


def write(value: Any) -> str:
    """Block style, in the order given; `read` gives the same value back."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)


def write_inline(value: Any) -> str:
    """On one line, for a hint."""
    text = yaml.dump(value, Dumper=_Writer, sort_keys=False, default_flow_style=True, allow_unicode=True, width=2**20)
    return text.removesuffix("\n").removesuffix("\n...")
