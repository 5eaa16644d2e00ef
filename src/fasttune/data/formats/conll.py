"""Read columns of words and tags, one word per line and an empty line between sentences, as CoNLL's shared tasks do.

Tjong Kim Sang and De Meulder 2003 (four columns, blanks), CoNLL-U (ten columns, tabs), Chinese .ner and .bmes files (a
character and a tag) are all of this form. The first column is the word and the last one the tag, except in CoNLL-U,
whose columns have fixed names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fasttune.data.formats.text_file import FileRows, TextFile, lines_of
from fasttune.data.problems import Problems, counted
from fasttune.errors import DataError, Problem, shown

CONLLU_SUFFIX = ".conllu"
CONLL_SUFFIXES = (".conll", CONLLU_SUFFIX, ".bio", ".iob", ".iob2", ".bioes", ".bmes", ".ner")
# https://universaldependencies.org/format.html; FORM is called tokens here, and UPOS tags.
CONLLU_NAMES = ("id", "tokens", "lemma", "tags", "xpos", "feats", "head", "deprel", "deps", "misc")
DOCUMENT = "-DOCSTART-"
LINES_LOOKED_AT = 1000  # to recognise the form in files with another extension
ENTITY_TAG = re.compile(r"O|[BIESMLUW][-_]\S+")  # outside, or a position and a type


@dataclass
class Sentences:
    """Sentences by columns. `starts`: the line of the file where each begins."""

    columns: list[list[list[str]]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def add(self, first_line: int, words: Sequence[Sequence[str]]) -> None:
        if not self.columns:
            self.columns = [[] for _ in words[0]]
        for column, values in zip(self.columns, zip(*words, strict=True), strict=True):
            column.append(list(values))
        self.starts.append(first_line)


def sentences_of(file: TextFile, where: str, suffix: str) -> FileRows:
    """One row per sentence: a list of words, and a list for each other column.

    DataError for lines with another number of fields than the lines before them.
    """
    import pyarrow as pa

    sentences, num_comments = _sentences(file.text, where, is_conllu=suffix == CONLLU_SUFFIX)
    if not sentences.starts:
        raise DataError(Problem(code="E104", where=where, found="the file has no words"))
    names = column_names(len(sentences.columns), is_conllu=suffix == CONLLU_SUFFIX)
    kind = pa.list_(pa.string())
    table = pa.table({name: pa.array(column, kind) for name, column in zip(names, sentences.columns, strict=True)})
    notes = [f"{where}: one word per line, sentences in columns {', '.join(names)}"]
    if num_comments:
        notes.append(f"{where}: skipped {counted(num_comments, 'comment or document line')}")
    return FileRows(table, sentences.starts, file.sha256, (*file.notes, *notes))


def column_names(number: int, *, is_conllu: bool) -> list[str]:
    """Names of the columns: those of CoNLL-U, or tokens, column2 ... and tags for the last one."""
    if is_conllu:
        return list(CONLLU_NAMES[:number])
    return ["tokens", *(f"column{position}" for position in range(2, number)), "tags"]


def looks_like_conll(text: str) -> bool:
    """Whether a text file with another extension has this form: sentences in lines of fields, the last one a tag.

    Only entity tags are recognised here, with O among them; a table of two columns has no empty lines between its rows.
    """
    lines = [line.rstrip("\r\n") for line in islice(lines_of(text), LINES_LOOKED_AT)]
    words = [line for line in lines if line.strip() and not line.startswith(("# ", DOCUMENT))]
    fields = [fields_of(line) for line in words]
    if not fields or len({len(values) for values in fields}) != 1 or len(fields[0]) < 2:
        return False
    has_gaps = len(words) < len("\n".join(lines).strip().splitlines())
    tags = [values[-1] for values in fields]
    return has_gaps and "O" in tags and all(ENTITY_TAG.fullmatch(tag) for tag in tags)


def fields_of(line: str) -> list[str]:
    """The fields of a line: separated by tabs if it has any, else by blanks."""
    line = line.rstrip("\r\n")
    return line.split("\t") if "\t" in line else line.split()


def _sentences(text: str, where: str, *, is_conllu: bool) -> tuple[Sentences, int]:
    """All sentences, and the number of comments and document lines."""
    sentences, num_comments = Sentences(), 0
    problems = Problems(where)
    for first_line, block in _blocks(text):
        words: list[list[str]] = []
        for number, line in enumerate(block, start=first_line):
            values = fields_of(line)
            width = len(words[0]) if words else len(sentences.columns)
            # A comment of CoNLL-U; a word "#" has as many fields as any other.
            is_comment = line.startswith("#") and (is_conllu or len(values) != (width or 2))
            if is_comment or values[0].startswith(DOCUMENT):
                num_comments += 1
            elif is_conllu and not values[0].isdigit():
                num_comments += 1  # 1-2 is a contraction and 1.1 an empty node: no words of the sentence
            elif len(values) < 2 or (width and len(values) != width):
                problems.add(_other_width(where, number, line, len(values), width))
            else:
                words.append(values)
        if words:
            sentences.add(first_line, words)
    problems.raise_if_any()
    return sentences, num_comments


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty, each with the number of its first line."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(lines_of(text), start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _other_width(where: str, number: int, line: str, num_fields: int, width: int) -> Problem:
    return Problem(
        code="E142",
        where=f"{where} line {number}",
        found=f"{num_fields} field{'s' if num_fields != 1 else ''} ({shown(line.strip())})",
        expected=f"{width} as in the lines before" if width else "a word and its tag",
        hint="write a word and its tag, separated by a tab or a blank, and an empty line between sentences",
    )
