"""Read files that do not fit in memory piece by piece, in shuffled order.

Files are divided into blocks: runs of whole lines of a JSONL, CSV or TSV file, or row groups of a Parquet file. Each
epoch shuffles the blocks, and consecutive blocks with about `rows_at_once` rows form a window, which is read into
memory together. A window's rows are a pure function of files, seed, epoch and window number, so nothing before it has
to be read again to resume. Every row is in exactly one window of an epoch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from fasttune.data.bad_rows import BadRows
from fasttune.data.formats.delimited import is_whole_quote, layout_of, read_lines
from fasttune.data.formats.files import (
    DELIMITED_SUFFIXES,
    MAY_BE_ANOTHER,
    bounded,
    form_of_text,
    plain_table,
    reading_tables,
)
from fasttune.data.formats.json_rows import read_json_lines
from fasttune.data.formats.storage import ReadOptions, inner_name, limit_of, opened, suffix_of
from fasttune.data.formats.text_file import BYTE_ORDER_MARKS, WRITE_AGAIN, FileRows, TextFile, text_of
from fasttune.data.formats.word_rows import holds_words
from fasttune.data.sources import Source, joined, several_kinds, streamed_files
from fasttune.errors import DataError, Problem

LONGEST_LINE = 1 << 24  # bytes to search for the end of a line after LEAST_BLOCK; there may be no line feed at all
BLOCKS_A_WINDOW = 16  # from different places of the files, so that a window mixes them
# Smaller blocks take longer to request than to read from remote files; larger ones leave a window few places to mix.
LEAST_BLOCK, LARGEST_BLOCK = 1 << 16, 1 << 22
MANY_ROWS = 4  # a block with this many times the rows of a window is reported
NOT_OF_A_ROW = ("E100", "E101", "E102", "E103", "E136", "E138")
STREAMED = ("JSONL", "CSV", "TSV", "Parquet")


@dataclass(frozen=True)
class Block:
    """A block of a file: the lines of a text file that begin in bytes [first, last), or the Parquet row group `first`.

    `size` is its stored size in bytes.
    """

    file: StreamedFile
    first: int
    last: int
    size: int


@dataclass(frozen=True, eq=False)
class StreamedFile(ABC):
    """A file to stream. `digest`: of its size, beginning and end; `num_rows`: None if unknown; `notes` as in Source."""

    name: str
    digest: str
    bytes_per_row: float
    num_rows: int | None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self, num_bytes: int) -> Iterator[Block]:
        """Yield the blocks of the file, of about `num_bytes` if the format does not fix their size."""

    @abstractmethod
    def read(self, first: int, last: int) -> tuple[str, FileRows]:
        """Return the name of a block, and its rows."""


@dataclass(frozen=True, eq=False)
class Lines(StreamedFile):
    """A text file. `begin`: the byte after the header; `parse`: turns whole lines and their name into rows."""

    begin: int = 0
    size: int = 0
    encoding: str | None = None
    parse: Callable[[TextFile, str], FileRows] = read_json_lines

    def blocks(self, num_bytes: int) -> Iterator[Block]:
        length = self.size - self.begin
        bounds = np.linspace(self.begin, self.size, max(round(length / num_bytes), 1) + 1).astype(np.int64)
        for first, last in pairwise(bounds.tolist()):
            yield Block(self, first, last, last - first)

    def read(self, first: int, last: int) -> tuple[str, FileRows]:
        name = f"{self.name} from byte {first + 1:,}"
        with opened(self.name) as file:
            data = lines_between(file, first, last, self.begin)
        return name, self.parse(text_of(data, name, self.encoding), name)


def lines_between(file: Any, first: int, last: int, begin: int = 0) -> bytes:
    """Return the whole lines that begin in bytes [first, last). A line begins at `begin` and after each line break."""
    start = max(first - 1, begin)
    file.seek(start)
    data = file.read(last - start)
    if first > begin:  # a line across `first` belongs to the block before
        data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
    while data and not data.endswith(b"\n") and (more := file.readline()):
        data += more
    return data


@dataclass(frozen=True, eq=False)
class RowGroups(StreamedFile):
    """A Parquet file."""

    metadata: Any = None  # pyarrow.parquet.FileMetaData

    def blocks(self, num_bytes: int) -> Iterator[Block]:
        for number in range(self.metadata.num_row_groups):
            yield Block(self, number, number + 1, self.metadata.row_group(number).total_byte_size)

    def read(self, first: int, last: int) -> tuple[str, FileRows]:
        import pyarrow.parquet as pq

        name = f"{self.name} row group {first + 1:,}"
        with opened(self.name) as file, reading_tables(name, ".parquet"):
            stored = pq.ParquetFile(file, metadata=self.metadata)
            batches = stored.iter_batches(row_groups=[first])
            table = plain_table(bounded(batches, stored.schema_arrow, name, limit_of(file.seek(0, 2), None)), name)
        return name, FileRows(table, None, "")


@dataclass(frozen=True, eq=False)
class Stream:
    """Files read in windows. `num_rows` is exact if the files store it, else estimated from the first window."""

    described_as: str
    blocks: tuple[Block, ...]
    blocks_per_window: int
    seed: int
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    split_names: tuple[str, ...] = ()
    licence: str | None = None
    num_rows_known: int | None = field(default=None, repr=False)
    bad: BadRows = field(default_factory=BadRows)

    @property
    def num_bytes(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def num_windows(self) -> int:
        """Windows per epoch."""
        return -(-len(self.blocks) // self.blocks_per_window)

    def window(self, epoch: int, number: int) -> Source:
        """Read a window; it may have no rows."""
        chosen = self._chosen(epoch, number)
        read = [piece for block in chosen for piece in self._read(block.file, block.first, block.last)]
        # A block in which no line begins has no columns.
        read = [(name, rows) for name, rows in read if rows.table.num_rows] or read[:1]
        if self.bad.most:
            read = self._with_same_columns(read)
        if any(holds_words(rows.table) for _, rows in read):
            raise DataError(_not_streamed(self.described_as, "a table with one word per row"))
        return replace(joined(read, self.described_as, self.described_as), pieces=True)

    def has_cells_of_several_lines(self) -> bool:
        """Whether a CSV or TSV file may have a line break within a cell, which no block shows; reads the files."""
        for file in dict.fromkeys(block.file for block in self.blocks):
            if isinstance(file, Lines) and file.parse is not read_json_lines:
                with opened(file.name) as lines:
                    if any(line.count(b'"') % 2 for line in lines):
                        return True
        return False

    def piece(self, number: int) -> Source:
        """Read block `number`, in the order of the files; it may have no rows."""
        block = self.blocks[number]
        return replace(joined(self._read(block.file, block.first, block.last), *2 * (self.described_as,)), pieces=True)

    def _read(self, file: StreamedFile, first: int, last: int) -> list[tuple[str, FileRows]]:
        """Read a block, or what is readable of it: halve it until a bad line remains, which is one byte wide."""
        try:
            return [file.read(first, last)]
        except DataError as error:
            # Only a line can be skipped: a row group has many rows, and a missing file loses all of them.
            if not self.bad.most or not isinstance(file, Lines) or error.problems[0].code in NOT_OF_A_ROW:
                raise
            if last - first == 1:
                self.bad.note(error)
                return []
        middle = (first + last) // 2
        return self._read(file, first, middle) + self._read(file, middle, last)

    def _with_same_columns(self, read: list[tuple[str, FileRows]]) -> list[tuple[str, FileRows]]:
        """Keep the pieces with the most common columns: a line that lacks a key is valid when it is read alone."""
        largest = max(read, key=lambda piece: piece[1].table.num_rows, default=None)
        kept = []
        for name, rows in read:
            try:
                joined([largest or (name, rows), (name, rows)], self.described_as, self.described_as)
            except DataError as error:
                for row in range(rows.table.num_rows):
                    self.bad.note(DataError(replace(error.problems[0], where=f"{name} row {row + 1}")))
            else:
                kept.append((name, rows))
        return kept

    @cached_property
    def sample(self) -> Source:
        """The first window, as a sample of the data."""
        source = self.window(0, 0)
        if not source.dataset.num_rows:
            raise DataError(Problem(code="E104", where=self.described_as, found="there are no rows"))
        return source

    @cached_property
    def num_rows(self) -> int:
        if self.num_rows_known is not None:
            return self.num_rows_known
        share = sum(block.size for block in self._chosen(0, 0)) / self.num_bytes
        return round(self.sample.dataset.num_rows / share)

    @property
    def size(self) -> str:
        """The number of rows, in words."""
        return f"{'about ' if self.num_rows_known is None else ''}{self.num_rows:,} rows"

    def _chosen(self, epoch: int, number: int) -> list[Block]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.blocks))
        first = number * self.blocks_per_window
        return [self.blocks[index] for index in order[first : first + self.blocks_per_window]]


def open_stream(
    spec: str | list[str], split: str, reading: ReadOptions, rows_at_once: int, seed: int, max_bad_rows: int = 0
) -> Stream:
    """Open a stream; `spec` and `split` as in `load_source`. Reads only the beginning of each file, or its footer."""
    named = streamed_files(spec, split)
    where = named.described_as
    kinds = {_kind(name): name for name in named.names}
    if len(kinds) > 1:
        raise DataError(several_kinds(where, list(kinds.values())))
    open_one = _row_groups if next(iter(kinds)) == ".parquet" else _lines
    files = [open_one(name, reading) for name in named.names]
    known = [file.num_rows for file in files]
    bytes_per_row = files[0].bytes_per_row
    block_bytes = int(np.clip(rows_at_once * bytes_per_row / BLOCKS_A_WINDOW, LEAST_BLOCK, LARGEST_BLOCK))
    blocks = tuple(block for file in files for block in file.blocks(block_bytes))
    if not blocks or known == [0] * len(files):
        raise DataError(Problem(code="E104", where=where, found="there are no rows"))
    rows_per_block = sum(block.size for block in blocks) / len(blocks) / bytes_per_row
    notes = [named.note] if named.note else []
    notes += [note for file in files for note in file.notes]
    if rows_per_block > MANY_ROWS * rows_at_once:
        notes.append(
            f"{where}: blocks have about {rows_per_block:,.0f} rows each and are read into memory whole, although "
            f"data.shuffle_buffer_size is {rows_at_once:,}"
        )
    return Stream(
        where,
        blocks,
        max(round(rows_at_once / rows_per_block), 1),
        seed,
        tuple(notes),
        hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest(),
        named.split_names,
        named.licence,
        None if None in known else sum(number or 0 for number in known),
        BadRows(max_bad_rows),
    )


def _kind(name: str) -> str:
    """Return the kind of a file; DataError if it cannot be streamed."""
    suffix = suffix_of(name)
    if inner_name(name) == name:
        if suffix in (".jsonl", ".ndjson"):
            return ".jsonl"
        if suffix in DELIMITED_SUFFIXES:
            return ".csv"
        if suffix == ".parquet":
            return suffix
    raise DataError(_not_streamed(name, f"a {suffix} file" if suffix else "a file without an extension"))


def _not_streamed(where: str, found: str) -> Problem:
    kinds = f"{', '.join(STREAMED[:-1])} or {STREAMED[-1]}"
    expected = f"a file that can be streamed: uncompressed {kinds}, in UTF-8 or data.encoding"
    hint = "data.streaming=false, or write it as JSONL or Parquet"
    return Problem(code="E138", where=where, found=found, expected=expected, hint=hint)


def _lines(name: str, reading: ReadOptions) -> Lines:
    head = _head(name)
    digest, size = _digest_and_size(name)
    text = text_of(head, name, reading.encoding)
    suffix, notes = suffix_of(name), text.notes
    other = form_of_text(text.text) if suffix in MAY_BE_ANOTHER else None
    if other is not None:
        raise DataError(_not_streamed(name, f"a file in the form of {other.name}"))
    begin, parse = 0, read_json_lines
    if suffix in DELIMITED_SUFFIXES:
        layout, layout_notes = layout_of(text.text, name, suffix, reading.header, reading.columns)
        if layout.delimiter == "\t":  # the beginning does not show whether double quotes enclose fields
            layout = replace(layout, quoted=_has_only_whole_quotes(name, reading.encoding))
        notes = (*notes, *layout_notes)
        parse = partial(read_lines, layout=layout)
        begin = head.find(b"\n") + 1 if layout.header else 0
    bytes_per_row = len(head) / (head.rstrip().count(b"\n") + 1)
    return Lines(name, digest, bytes_per_row, None, notes, begin, size, reading.encoding, parse)


def _has_only_whole_quotes(name: str, encoding: str | None) -> bool:
    """Return whether every field of a tab-separated file that contains a double quote is quoted.

    Reads the file once: a single quote inside a field makes all of them plain text, as in `delimited`.
    """
    with opened(name) as file:
        for line in file:
            if b'"' not in line:
                continue
            text = line.decode(encoding or "utf-8", errors="replace").rstrip("\r\n")
            if not all(map(is_whole_quote, text.split("\t"))):
                return False
    return True


def _head(name: str) -> bytes:
    """Return the whole lines at the beginning of a file."""
    with opened(name) as file:
        head = file.read(LEAST_BLOCK)
        if not head:
            raise DataError(Problem(code="E103", where=name, found="the file is empty (0 bytes)", hint=WRITE_AGAIN))
        for mark, encoding in BYTE_ORDER_MARKS:
            if head.startswith(mark):
                raise DataError(_not_streamed(name, f"a file in {encoding.upper()}"))
        head += file.readline(LONGEST_LINE)
        if not head.endswith(b"\n") and (file.read(1) or b"\r" in head):
            raise DataError(_not_streamed(name, f"no line feed in {min(len(head), LONGEST_LINE):,} bytes"))
        return head


def _digest_and_size(name: str) -> tuple[str, int]:
    with opened(name) as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256(str(size).encode())
        for position in (0, max(size - LEAST_BLOCK, 0)):
            file.seek(position)
            digest.update(file.read(LEAST_BLOCK))
    return digest.hexdigest(), size


def _row_groups(name: str, reading: ReadOptions) -> RowGroups:
    import pyarrow.parquet as pq

    digest, size = _digest_and_size(name)
    with opened(name) as file, reading_tables(name, ".parquet"):
        metadata = pq.ParquetFile(file).metadata
    stored = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return RowGroups(name, digest, (stored or size) / max(metadata.num_rows, 1), metadata.num_rows, (), metadata)
