"""The recipe sections about rows: where they come from, and how they become tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from fasttune.recipe.section import Section, setting
from fasttune.recipe.types import (
    LARGEST_SEED,
    Count,
    Header,
    NameList,
    NameTable,
    Number,
    Seed,
    Text,
    Texts,
    Values,
    Whole,
    check_encoding,
    to_list,
)

PATHS = "a path, a glob such as 'data/*.csv', a hub id, or a list of them"


def column(description: str) -> Any:
    return setting(None, description, allowed="a column name, or null (detected)")


class Columns(Section):
    text: Text | None = column(
        "The column with the text. If unset, it is detected from the column names and reported.",
    )
    text_pair: Text | None = column(
        "The column with the second text of a sentence pair. If unset, it is detected and reported when `text` is "
        "unset too; otherwise rows have a single text.",
    )
    label: Text | Texts | None = setting(
        None,
        "The column with the label, or a list of columns that hold 0 or 1, one for each label. If unset, it is "
        "detected from the column names and cells, and reported.",
        allowed="a column name, a list of at least two column names, or null (detected)",
    )
    question: Text | None = column(
        "The column with the question. If unset, it is detected and reported.",
    )
    context: Text | None = column(
        "The column with the text that contains the answer. If unset, it is detected and reported.",
    )
    answers: Text | None = column(
        "The column with the correct answers: texts with their start characters in the SQuAD format, or a single plain "
        "text. If unset, it is detected and reported.",
    )
    answer_start: Text | None = column(
        "The column with the start character of a plain-text answer, counted from 0. If unset, it is detected when "
        "`answers` is unset too. Without this column, each answer must occur exactly once in its context.",
    )
    tokens: Text | None = column(
        "The column with the words of a row, as a list or as one text. If unset, it is detected and reported.",
    )
    tags: Text | None = column(
        "The column with one tag per word, as a list or separated by spaces. If unset, it is detected and reported.",
    )
    group: Text | None = setting(
        None,
        "Keep rows with the same value in this column, such as a user or an article, on the same side of a held-out "
        "split. If unset, rows with the same text stay together.",
        allowed="a column name, or null",
    )
    time: Text | None = setting(
        None,
        "A column of dates or numbers. The latest rows are held out, to measure the model on data newer than what it "
        "was trained on. If unset, held-out rows are drawn at random.",
        allowed="a column name, or null",
    )


class Data(Section):
    train: Text | Texts = setting(
        ...,
        "The training rows: a path, a glob, a hub id, a list of these, or generated data: `starter` (reviews), "
        "`starter:pairs`, `starter:questions`. Relative paths are resolved from the working directory, not from the "
        "recipe's folder, so that you can share a recipe or run a shipped one in place.",
        allowed=PATHS + ", or 'starter'",
    )
    validation: Text | Texts | None = setting(
        None,
        "The rows used to choose the best epoch and for early stopping. If unset, `data.validation_fraction` of the "
        "training rows is held out.",
        allowed=PATHS,
    )
    test: Text | Texts | None = setting(
        None,
        "The test rows. They are scored once, after training, and influence nothing.",
        allowed=PATHS,
    )
    unlabelled: Text | Texts | None = setting(
        None,
        "Further rows without labels, for `training.teacher`, which labels them, and for `training.mlm_epochs`. Rows "
        "whose text is also a validation or test text are left out.",
        allowed=PATHS,
    )
    columns: Columns = Field(default_factory=Columns, description="The role of each column.")
    label_names: NameList | NameTable | None = setting(
        None,
        "The names of the labels. With a list and numeric labels: the names of label 0, 1, 2 and so on. With a list "
        "and text labels: the order of the labels. A table maps each value in the data to a name. If unset, numeric "
        "labels are ordered by value and text labels alphabetically.",
        allowed="a list of at least two different names, or a table from the value in the data to the name "
        "(quote a name that looks like a number)",
    )
    corrections: Text | None = setting(
        None,
        "Corrected labels of training rows: the file that `fasttune labels RUN` writes, with wrong labels replaced in "
        "its column `label`. Held-out rows keep their labels, so that scores stay comparable.",
        allowed="a path, or null",
    )
    no_label: Values | None = setting(
        None,
        "Values in the label column that mean that a row has no label, such as -1. These rows are dropped and counted, "
        "as are rows with an empty label, '-', '?' or 'nan' (unless `label_names` names it).",
        allowed="a value such as -1, or a list of values",
    )
    label_separator: Text | None = setting(
        None,
        "Multi-label data in text files: the separator between the labels in a cell (`2,25`). If unset, a comma, "
        "semicolon or vertical bar is detected, and reported, when every part is also the label of other rows.",
        allowed="a text such as ',' or ';', or null (detected)",
    )
    fix_spans: Annotated[bool, Strict()] = setting(
        False,
        "Question answering: correct the position of answers that do not occur at `answer_start` but occur exactly "
        "once elsewhere in the context. Answers that cannot be located are used for scoring but not for training. "
        "Both are counted and reported.",
        allowed="true or false",
    )
    label_range: Annotated[list[Number], BeforeValidator(to_list), Field(min_length=2, max_length=2)] | None = setting(
        None,
        "Regression: the minimum and maximum of a label. Rows with labels outside this range are refused.",
        allowed="two numbers such as [0, 5], or null (no limits)",
    )
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = setting(
        None,
        "The encoding of text files that are not UTF-8, such as cp1252 or gb18030. A byte order mark takes precedence.",
        allowed="the name of an encoding such as cp1252 or gb18030, or null (UTF-8)",
    )
    header: Header = setting(
        "auto",
        "Whether the first row of CSV, TSV and text files and of spreadsheets holds the column names. If `false`, the "
        "columns are named column1, column2 and so on. `auto` expects a header unless the first row looks like the "
        "rows below it, skips title lines above a header, and reads a .txt file without delimiters as one text per "
        "line, unless its first line is a common column name.",
        allowed="true, false or 'auto'",
    )
    sheet: Text | None = setting(
        None,
        "The sheet of a spreadsheet to read. If unset, the only sheet that has cells.",
        allowed="the name of a sheet, or null",
    )
    max_bytes: Count | None = setting(
        None,
        "The maximum size of a compressed file's content. If unset, 1 GiB or 100 times the compressed size, whichever "
        "is larger.",
        allowed="a whole number of bytes above 0, or null",
    )
    total_row: Literal["ask", "keep", "drop"] = setting(
        "ask",
        "What to do with a last row that looks like the total of a spreadsheet ('Total', 'Summe'). `ask` refuses it.",
        allowed="'ask', 'keep' or 'drop'",
    )
    drop_empty: Literal["auto"] | Annotated[bool, Strict()] = setting(
        "auto",
        "Whether to drop rows with an empty text or label. They are counted and reported. `auto` drops rows without a "
        "label, and rows without a text if they are at most 5 % of the rows, but none with `data.streaming`. Rows that "
        "are not dropped are an error.",
        allowed="true, false or 'auto'",
    )
    drop_duplicates: Annotated[bool, Strict()] = setting(
        False,
        "Drop training rows whose text is a duplicate or near-duplicate of a validation or test row, and all but the "
        "first of the training rows with the same text and label. The number of dropped rows is reported.",
        allowed="true or false",
    )
    streaming: Annotated[bool, Strict()] = setting(
        False,
        "Read training rows during training, for data that does not fit in memory: JSONL, CSV and TSV (one row per "
        "line) and Parquet, from files, URLs or the hub. Requires `data.validation`. If the files do not record their "
        "number of rows, the number of steps per epoch is estimated from their sizes.",
        allowed="true or false",
    )
    shuffle_buffer_size: Count = setting(
        10_000,
        "The number of streamed rows that are read and shuffled together. They come from at least 16 places in the "
        "data if the files allow it.",
        allowed="a whole number of rows above 0",
    )
    max_bad_rows: Annotated[Whole, Field(ge=0)] = setting(
        0,
        "Streaming: the number of unusable rows to skip, each reported, before the run fails. Without streaming, all "
        "rows are checked before the first step.",
        allowed="a whole number, 0 or above",
    )
    validation_fraction: Number = setting(
        0.1,
        "The fraction of the training rows held out for validation if `data.validation` is unset. The split is "
        "stratified by label if rows have one, and keeps groups whole if `data.columns.group` is set or the task "
        "defines groups.",
        allowed="a fraction above 0 and below 1",
        gt=0,
        lt=1,
    )
    test_fraction: Number = setting(
        0,
        "The fraction of the training rows held out as test rows in the same way, if `data.test` is unset and the data "
        "set has no test split.",
        allowed="a fraction from 0 to below 1",
        ge=0,
        lt=1,
    )
    max_train_samples: Count | None = setting(
        None,
        "Train on a random sample of this many rows, drawn with `data.seed`. If unset, use all rows.",
        allowed="a whole number above 0, or null (all rows)",
    )
    max_eval_samples: Count | None = setting(
        None,
        "Evaluate on a random sample of this many rows of each of the validation and test splits, drawn with "
        "`data.seed`. If unset, use all rows.",
        allowed="a whole number above 0, or null (all rows)",
    )
    seed: Seed = setting(
        42,
        "The seed for the validation split and the samples. It is separate from `training.seed`, so that runs with "
        "different training seeds use the same rows.",
        allowed=f"a whole number from 0 to {LARGEST_SEED}",
    )


class Preprocessing(Section):
    max_length: Annotated[Whole, Field(ge=3)] | None = setting(
        None,
        "The maximum number of tokens per text, including the model's special tokens. Longer texts are truncated and "
        "counted; in question answering, longer contexts are split into windows. If unset, the model's maximum, or 384 "
        "for question answering.",
        allowed="a whole number of tokens from 3 up to the model's maximum, or null (the model's maximum)",
    )
    long_text: Literal["truncate", "head_tail", "windows"] = setting(
        "truncate",
        "What to do with a single text longer than `preprocessing.max_length`. `truncate` drops the end. `head_tail` "
        "drops the middle: a quarter of the tokens kept are from the beginning. `windows` reads the whole text in "
        "windows and pools their logits, in training and in prediction. The number of affected rows is reported.",
        allowed="'truncate', 'head_tail' or 'windows'",
    )
    window_pooling: Literal["mean", "max"] = setting(
        "mean",
        "How to pool the logits of the windows of a text.",
        allowed="'mean' or 'max'",
    )
    doc_stride: Annotated[Whole, Field(ge=0)] = setting(
        128,
        "Question answering: the overlap, in tokens, between neighbouring windows of a long context.",
        allowed="a whole number of tokens from 0, smaller than the space a window leaves for the context",
    )
    word_boundaries: Literal["auto", "whitespace", "punctuation", "characters"] = setting(
        "auto",
        "Token classification: how to split a text into words. `whitespace` splits at whitespace only. `punctuation` "
        "also splits around punctuation marks and Chinese characters. `characters` makes each character a word. `auto` "
        "detects how the training rows are split and stores it, so that `predict` and `evaluate` split the same way. "
        "Rows that are lists of words are never split.",
        allowed="'auto', 'whitespace', 'punctuation' or 'characters'",
    )
    padding: Literal["none", "longest", "max_length"] = setting(
        "none",
        "`none` computes real tokens only, which is fastest. `longest` pads to the longest text of a micro-batch. "
        "`max_length` pads to `preprocessing.max_length`, for devices that need fixed shapes. All three give the same "
        "result.",
        allowed="'none', 'longest' or 'max_length'",
    )
