"""Read columns of words and tags, one word per line and an empty line between sentences, as CoNLL's shared tasks do.

Tjong Kim Sang and De Meulder 2003 (four columns, blanks), CoNLL-U (ten columns, tabs), Chinese .ner and .bmes files (a
character and a tag) are all of this form. The first column is the word and the last one the tag, except in CoNLL-U,
whose columns have fixed names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice

from fasttune.data.formats.storage import ReadOptions
from fasttune.data.formats.text_file import FileRows, TextFile, lines_of, read_text
from fasttune.data.formats.word_rows import is_header, sentences_unknown
from fasttune.data.problems import Problems, counted
from fasttune.data.tokens.tags import OUTSIDE, form_of, parts_of_tag
from fasttune.errors import DataError, Problem, shown

CONLLU_SUFFIX = ".conllu"
CONLL_SUFFIXES = (".conll", CONLLU_SUFFIX, ".bio", ".iob", ".iob2", ".bioes", ".bmes", ".ner")
# https://universaldependencies.org/format.html; FORM is called tokens here, and UPOS tags.
CONLLU_NAMES = ("id", "tokens", "lemma", "tags", "xpos", "feats", "head", "deprel", "deps", "misc")
DOCUMENT = "-DOCSTART-"
LINES_LOOKED_AT = 1000  # to recognise the form in files with another extension
RECOGNISED_SHARE = 0.95  # of these lines


def read_conll(name: str, suffix: str, reading: ReadOptions) -> FileRows:
    return sentences_of(read_text(name, reading), name, suffix, reading.columns)


def sentences_of(file: TextFile, where: str, suffix: str, named: Sequence[str] = ()) -> FileRows:
    """One row per sentence: a list of words, and a list for each other column. `named`: columns that the recipe names.

    DataError for lines with another number of fields than most lines have.
    """
    import pyarrow as pa

    is_conllu = suffix == CONLLU_SUFFIX
    width, is_tabbed = num_fields(file.text), "\t" in file.text
    sentences: list[tuple[tuple[str, ...], ...]] = []  # of each sentence, its columns
    header: list[str] | None = None
    starts: list[int] = []
    num_skipped = 0
    problems = Problems(where)
    for first_line, block in _blocks(file.text):
        words: list[list[str]] = []
        for number, line in enumerate(block, start=first_line):
            values = fields_of(line)
            if _is_skipped(line, values, width, is_tabbed, is_conllu):
                num_skipped += 1
            elif len(values) != width or width < 2:
                problems.add(_other_width(where, number, line, len(values), width))
            elif not sentences and not words and is_header(values):
                header = values
            else:
                words.append(values)
        if words:
            sentences.append(tuple(zip(*words, strict=True)))
            starts.append(first_line)
    problems.raise_if_any()
    if not sentences:
        raise DataError(Problem(code="E104", where=where, found="the file has no words"))
    if len(sentences) == 1 and suffix not in CONLL_SUFFIXES and is_words_without_sentences(file.text):
        raise DataError(sentences_unknown(where, sentences[0][0]))
    columns = list(zip(*sentences, strict=True))
    names = _column_names(columns, is_conllu)
    if not is_conllu:
        names = _checked_names(columns, names, where, named)
    table = pa.table(
        {name: pa.array(column, pa.list_(pa.string())) for name, column in zip(names, columns, strict=True)}
    )
    notes = [f"{where}: one word per line, sentences in columns {', '.join(names)}"]
    if header is not None:
        notes.append(f"{where}: the first line names the columns ({', '.join(header)})")
    if num_skipped:
        notes.append(f"{where}: skipped {counted(num_skipped, 'comment or document line')}")
    return FileRows(table, starts, file.sha256, (*file.notes, *notes))


def is_words_without_sentences(text: str) -> bool:
    """Whether a text has several lines and no empty one between them."""
    lines = text.strip().splitlines()
    return len(lines) > 1 and all(line.strip() for line in lines)


def looks_like_conll(text: str) -> bool:
    """Whether a text file with another extension has this form.

    Recognised by entity tags, O among them, in the last column of nearly all lines: a line with a field too few is then
    reported and not read as something else. Empty lines divide the sentences.
    """
    lines = [line.strip("\r\n") for line in islice(lines_of(text), LINES_LOOKED_AT)]
    width = num_fields("\n".join(lines))
    rows = [fields_of(line) for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))]
    is_divided = any(not line.strip() for line in "\n".join(lines).strip().split("\n"))
    tags = Counter(values[-1] for values in rows if len(values) == width)
    common = [tag for tag, number in tags.items() if form_of([tag]) is not None or tag == OUTSIDE]
    fitting = sum(tags[tag] for tag in common)
    form = form_of(common)
    # Two columns without empty lines are words whose sentences are unknown; more may have a column for the sentence.
    is_known = is_divided and (form is not None or common == [OUTSIDE])
    is_form = is_known or (width == 2 and form is not None)
    return width >= 2 and is_form and OUTSIDE in tags and fitting >= RECOGNISED_SHARE * len(rows)


def num_fields(text: str) -> int:
    """The number of fields that most lines have, without comments and document lines; 0 if there are no others."""
    lines = (line for line in lines_of(text) if line.strip() and not line.startswith(("#", DOCUMENT)))
    return Counter(len(fields_of(line)) for line in lines).most_common(1)[0][0] if text.strip() else 0


def fields_of(line: str) -> list[str]:
    """The fields of a line: separated by tabs if it has any, else by blanks."""
    line = line.rstrip("\t \r\n")
    # Only blanks separate, no non-breaking spaces, which are part of words such as 10 000.
    return line.split("\t") if "\t" in line else [value for value in line.split(" ") if value]


def _is_skipped(line: str, values: list[str], width: int, is_tabbed: bool, is_conllu: bool) -> bool:
    """Whether a line holds no word of a sentence. The word "#" has as many fields as any other, divided alike."""
    if line.startswith(DOCUMENT):
        return True
    if is_conllu:
        return not values[0].isdigit()  # a comment; 1-2, a contraction; or 1.1, an empty node
    return line.startswith("#") and (len(values) != width or (is_tabbed and "\t" not in line))


def _column_names(columns: Sequence[Sequence[Sequence[str]]], is_conllu: bool) -> list[str]:
    """The names of CoNLL-U; or tokens, column2 ... and tags for the last one, after an id if the words are numbered."""
    if is_conllu:
        return list(CONLLU_NAMES[: len(columns)])
    is_numbered = len(columns) > 2 and all(
        list(sentence) == [str(number) for number in range(1, len(sentence) + 1)] for sentence in columns[0]
    )
    first = ["id", "tokens"] if is_numbered else ["tokens"]
    return [*first, *(f"column{position}" for position in range(len(first) + 1, len(columns))), "tags"]


def _checked_names(
    columns: Sequence[Sequence[Sequence[str]]], names: list[str], where: str, named: Sequence[str]
) -> list[str]:
    """The names, exchanged if the tag comes first; DataError if two columns tag entities of the same types."""
    types = [_types(column) for column in columns]
    if types[0] and not types[-1]:
        return ["tags", *names[1:-1], "tokens"]
    tagging = [
        name for name, found in zip(names[1:-1], types[1:-1], strict=True) if found and found & (types[-1] or found)
    ]
    is_empty = not types[-1] and all(tag == OUTSIDE for sentence in columns[-1] for tag in sentence)
    if tagging and (types[-1] or is_empty) and not set(named) & set(names):
        raise DataError(
            Problem(
                code="E146",
                where=where,
                found=f"two columns hold entity tags, {shown(tagging[-1])} and the last one, as with nested entities",
                hint=f"data.columns.tags={tagging[-1]} or data.columns.tags=tags",
            )
        )
    return names


def _types(column: Sequence[Sequence[str]]) -> set[str]:
    """The types of entities that a column tags; empty if it holds anything else."""
    tags = set(chain.from_iterable(column))
    form = form_of(tags) if OUTSIDE in tags else None
    return {parts_of_tag(tag, form)[1] for tag in tags - {OUTSIDE}} if form is not None else set()


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty, each with the number of its first line."""
    numbered = enumerate(lines_of(text), start=1)
    for is_empty, group in groupby(numbered, key=lambda pair: not pair[1].strip()):
        if not is_empty:
            block = list(group)
            yield block[0][0], [line for _, line in block]


def _other_width(where: str, number: int, line: str, num_found: int, width: int) -> Problem:
    return Problem(
        code="E142",
        where=f"{where} line {number}",
        found=f"{counted(num_found, 'field')} ({shown(line.strip())})",
        expected=f"{width} as in most lines" if width > 1 else "a word and its tag",
        hint="write a word and its tag, separated by a tab or a blank, and an empty line between sentences",
    )
