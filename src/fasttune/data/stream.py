"""Rows of files that do not fit into memory, read piece by piece in a shuffled order.

Files are seen as blocks: runs of whole lines of a JSONL, CSV or TSV file, row groups of a Parquet file. An epoch takes
the blocks in an order drawn from seed and epoch; so many neighbours in that order as make `rows_at_once` rows are a
window, which is read at once. What a window holds is a pure function of files, seed, epoch and its number: nothing
before it has to be read again, and every row is in one window of an epoch.
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
from fasttune.data.formats.files import DELIMITED_SUFFIXES, bounded, plain_table, reading_tables
from fasttune.data.formats.json_rows import read_json_lines
from fasttune.data.formats.storage import Reading, inner_name, limit_of, opened, suffix_of
from fasttune.data.formats.text_file import BYTE_ORDER_MARKS, WRITE_AGAIN, FileRows, TextFile, text_of
from fasttune.data.sources import Source, joined, several_kinds, streamed_files
from fasttune.errors import DataError, Problem

LONGEST_LINE = 1 << 24  # bytes, of the first line behind LEAST_BLOCK; a file without line feeds has none
BLOCKS_A_WINDOW = 16  # so many places of the files are mixed
# Below, a block takes longer to ask for than to read where files lie elsewhere; above, a window is a few places only.
LEAST_BLOCK, LARGEST_BLOCK = 1 << 16, 1 << 22
MANY_ROWS = 4  # times those of a window in one block: worth saying
NOT_OF_A_ROW = ("E100", "E101", "E102", "E103", "E136", "E138")
STREAMED = ("JSONL", "CSV", "TSV", "Parquet")


@dataclass(frozen=True)
class Block:
    """`first` to `last`: bytes of a text file where lines begin; a Parquet file's row group has its number as `first`.

    `size` in bytes, as stored.
    """

    file: StreamedFile
    first: int
    last: int
    size: int


@dataclass(frozen=True, eq=False)
class StreamedFile(ABC):
    """`digest` of size, beginning and end; `num_rows` where it is known; `notes` as a Source has them."""

    name: str
    digest: str
    bytes_per_row: float
    num_rows: int | None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self, num_bytes: int) -> Iterator[Block]:
        """All of it, in blocks of about so many bytes where its kind leaves that open."""

    @abstractmethod
    def read(self, first: int, last: int) -> tuple[str, FileRows]:
        """The rows of a block, and what it is called."""


@dataclass(frozen=True, eq=False)
class Lines(StreamedFile):
    """A text file; `begin`: where its rows begin, below the header; `parse`: whole lines and their name -> rows."""

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
    """The lines that begin at these bytes, whole; one begins at `begin` and after each line break."""
    start = max(first - 1, begin)
    file.seek(start)
    data = file.read(last - start)
    if first > begin:  # the line that lies across `first` belongs to the block before
        data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
    while data and not data.endswith(b"\n") and (more := file.readline()):
        data += more
    return data


@dataclass(frozen=True, eq=False)
class RowGroups(StreamedFile):
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
    """`num_rows`: of all files; counted where the files say it, else estimated from those of the first window."""

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
    def num_windows(self) -> int:
        """Of an epoch."""
        return -(-len(self.blocks) // self.blocks_per_window)

    def window(self, epoch: int, number: int) -> Source:
        """Its rows, which may be none."""
        chosen = self._chosen(epoch, number)
        read = [piece for block in chosen for piece in self._read(block.file, block.first, block.last)]
        # A block without the beginning of a line knows no columns.
        read = [(name, rows) for name, rows in read if rows.table.num_rows] or read[:1]
        if self.bad.most:
            read = self._fitting(read)
        return replace(joined(read, self.described_as, self.described_as), pieces=True)

    def _read(self, file: StreamedFile, first: int, last: int) -> list[tuple[str, FileRows]]:
        """A block, or the parts of it that can be read; what is left of a line that cannot is one byte."""
        try:
            return [file.read(first, last)]
        except DataError as error:
            # Only a line can be left out: a row group is many rows, and a file that is not there is all of them.
            if not self.bad.most or not isinstance(file, Lines) or error.problems[0].code in NOT_OF_A_ROW:
                raise
            if last - first == 1:
                self.bad.note(error)
                return []
        middle = (first + last) // 2
        return self._read(file, first, middle) + self._read(file, middle, last)

    def _fitting(self, read: list[tuple[str, FileRows]]) -> list[tuple[str, FileRows]]:
        """Those with the columns of most rows: a line that was cut out for its missing key is whole by itself."""
        most = max(read, key=lambda piece: piece[1].table.num_rows, default=None)
        kept = []
        for name, rows in read:
            try:
                joined([most or (name, rows), (name, rows)], self.described_as, self.described_as)
            except DataError as error:
                for row in range(rows.table.num_rows):
                    self.bad.note(DataError(replace(error.problems[0], where=f"{name} row {row + 1}")))
            else:
                kept.append((name, rows))
        return kept

    @cached_property
    def sample(self) -> Source:
        """The first window, to look at."""
        source = self.window(0, 0)
        if not source.dataset.num_rows:
            raise DataError(Problem(code="E104", where=self.described_as, found="0 rows", expected="rows of data"))
        return source

    @cached_property
    def num_rows(self) -> int:
        if self.num_rows_known is not None:
            return self.num_rows_known
        share = sum(block.size for block in self._chosen(0, 0)) / sum(block.size for block in self.blocks)
        return round(self.sample.dataset.num_rows / share)

    @property
    def size(self) -> str:
        """How many rows, in words."""
        return f"{'about ' if self.num_rows_known is None else ''}{self.num_rows:,} rows"

    def _chosen(self, epoch: int, number: int) -> list[Block]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.blocks))
        return [self.blocks[place] for place in order[number * self.blocks_per_window :][: self.blocks_per_window]]


def open_stream(
    spec: str | list[str], split: str, reading: Reading, rows_at_once: int, seed: int, max_bad_rows: int = 0
) -> Stream:
    """`spec` and `split` as `load_source` has them. Only the beginning of each file, or its footer, is read here."""
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
        raise DataError(Problem(code="E104", where=where, found="0 rows", expected="rows of data"))
    rows_per_block = sum(block.size for block in blocks) / len(blocks) / bytes_per_row
    notes = [named.note] if named.note else []
    notes += [note for file in files for note in file.notes]
    if rows_per_block > MANY_ROWS * rows_at_once:
        notes.append(f"{where}: about {rows_per_block:,.0f} rows a block, which are read at once")
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
    """The kind of a file that can be streamed; DataError for others."""
    suffix = suffix_of(name)
    if inner_name(name) == name:
        if suffix in (".jsonl", ".ndjson"):
            return ".jsonl"
        if suffix in DELIMITED_SUFFIXES:
            return ".csv"
        if suffix == ".parquet":
            return suffix
    what = f"a {suffix} file" if suffix else "a file without an ending"
    raise DataError(_not_streamed(name, f"{what}, which cannot be read piece by piece"))


def _not_streamed(where: str, found: str) -> Problem:
    expected = f"{', '.join(STREAMED[:-1])} or {STREAMED[-1]}, unpacked, text in UTF-8 or as data.encoding says"
    hint = "data.streaming=false, or write it as JSONL or Parquet"
    return Problem(code="E138", where=where, found=found, expected=expected, hint=hint)


def _lines(name: str, reading: Reading) -> Lines:
    head = _head(name)
    digest, size = _digest_and_size(name)
    text = text_of(head, name, reading.encoding)
    suffix, notes, begin, parse = suffix_of(name), text.notes, 0, read_json_lines
    if suffix in DELIMITED_SUFFIXES:
        layout, said = layout_of(text.text, name, suffix, reading.header, reading.columns)
        if layout.delimiter == "\t":  # of which the beginning does not tell whether quotes are quoting
            layout = replace(layout, quoted=_has_only_whole_quotes(name, reading.encoding))
        notes, parse = (*notes, *said), partial(read_lines, layout=layout)
        begin = head.find(b"\n") + 1 if layout.header else 0
    bytes_per_row = len(head) / (head.rstrip().count(b"\n") + 1)
    return Lines(name, digest, bytes_per_row, None, notes, begin, size, reading.encoding, parse)


def _has_only_whole_quotes(name: str, encoding: str | None) -> bool:
    """Whether every field of a file with tabs that holds a double quote is enclosed in them, as writers that quote do.

    One pass over the file: with a quote inside a field somewhere, all of them are text, as for a file read at once.
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
    """Whole lines of its beginning."""
    with opened(name) as file:
        head = file.read(LEAST_BLOCK)
        if not head:
            found, hint = "a file of 0 bytes", WRITE_AGAIN
            raise DataError(Problem(code="E103", where=name, found=found, expected="rows of data", hint=hint))
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
        for place in (0, max(size - LEAST_BLOCK, 0)):
            file.seek(place)
            digest.update(file.read(LEAST_BLOCK))
    return digest.hexdigest(), size


def _row_groups(name: str, reading: Reading) -> RowGroups:
    import pyarrow.parquet as pq

    digest, size = _digest_and_size(name)
    with opened(name) as file, reading_tables(name, ".parquet"):
        metadata = pq.ParquetFile(file).metadata
    stored = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return RowGroups(name, digest, (stored or size) / max(metadata.num_rows, 1), metadata.num_rows, (), metadata)
