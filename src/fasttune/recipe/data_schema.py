"""The sections of a recipe about rows: where they come from, and how they become tokens."""

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
    Whole,
    check_encoding,
    to_list,
)

PATHS = "a path, a glob such as 'data/*.csv', a hub id, or a list of them"


def column(description: str) -> Any:
    return setting(None, description, allowed="the name of a column, or nothing (guessed)")


class Columns(Section):
    text: Text | None = column(
        "The column that holds the text. Left out: guessed from the names of the columns, and said.",
    )
    text_pair: Text | None = column(
        "The column that holds the second text of a sentence pair. Left out: guessed where `text` is left out too, and "
        "said; otherwise there is none.",
    )
    label: Text | None = column(
        "The column that holds the label. Left out: guessed from the names of the columns, and said.",
    )
    question: Text | None = column(
        "The column that holds the question. Left out: guessed, and said.",
    )
    context: Text | None = column(
        "The column that holds the text in which the answer stands. Left out: guessed, and said.",
    )
    answers: Text | None = column(
        "The column that holds the right answers: texts with their first characters, as SQuAD and the hub have them, "
        "or one plain text. Left out: guessed, and said.",
    )
    answer_start: Text | None = column(
        "The column that holds the first character of a plain answer, counted from 0. Left out: guessed where "
        "`answers` is left out too; without one an answer must stand in its context just once.",
    )
    tokens: Text | None = column(
        "The column that holds the words of a row, as a list or a text. Left out: guessed, and said.",
    )
    tags: Text | None = column(
        "The column that holds a tag for each word, as a list or with blanks between. Left out: guessed, and said.",
    )
    group: Text | None = setting(
        None,
        "A column whose equal values stay on one side of a held-out split, such as the user or the article that rows "
        "are from. Left out: rows of the same text stay together.",
        allowed="the name of a column, or nothing",
    )
    time: Text | None = setting(
        None,
        "A column of dates or numbers; the latest rows are held out, as a model meets them. Left out: drawn at random.",
        allowed="the name of a column, or nothing",
    )


class Data(Section):
    train: Text | Texts = setting(
        ...,
        "The rows to learn from: a path, a glob, a hub id, a list of them, or generated ones: `starter` "
        "(reviews), `starter:pairs`, `starter:questions`. Relative paths count from the working directory, not from "
        "the recipe's folder, so that a recipe can be shared and a shipped one used in place.",
        allowed=PATHS + ", or 'starter'",
    )
    validation: Text | Texts | None = setting(
        None,
        "The rows that choose the best epoch and decide on early stopping. Left out: `data.validation_fraction` of the "
        "training rows is set aside.",
        allowed=PATHS,
    )
    test: Text | Texts | None = setting(
        None,
        "The rows that are scored once, after training, and influence nothing.",
        allowed=PATHS,
    )
    columns: Columns = Field(default_factory=Columns, description="Which column holds what.")
    label_names: NameList | NameTable | None = setting(
        None,
        "The names of the labels. A list: where the data holds numbers, the name of label 0, 1, 2 ...; where it holds "
        "names, their order. A table: from the value in the data to the name. Left out: numbers in their order, names "
        "sorted.",
        allowed="a list of two or more different names, or a table from the value in the data to the name "
        "(a name that looks like a number goes in quotes)",
    )
    label_separator: Text | None = setting(
        None,
        "What stands between the labels of one cell, where rows have several and the file holds texts (`2,25`). Left "
        "out: a comma, semicolon or bar where every part is also the label of other rows, and said.",
        allowed="a text such as ',' or ';', or nothing (found by itself)",
    )
    fix_spans: Annotated[bool, Strict()] = setting(
        False,
        "Question answering: move answers that do not stand where they are said to, if they stand at one other place "
        "of the context; those that stand nowhere are scored with but not learned from. Both are counted and said.",
        allowed="true or false",
    )
    label_range: Annotated[list[Number], BeforeValidator(to_list), Field(min_length=2, max_length=2)] | None = setting(
        None,
        "Regression: the least and the greatest number that a label can be; one outside is refused.",
        allowed="two numbers, such as [0, 5], or nothing (any)",
    )
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = setting(
        None,
        "How text files are encoded that are not UTF-8, such as cp1252 or gb18030. A byte order mark goes before it.",
        allowed="the name of an encoding, such as cp1252 or gb18030, or nothing (UTF-8)",
    )
    header: Header = setting(
        "auto",
        "Whether the first row of CSV, TSV and text files names the columns; if `false` they are column1, column2 and "
        "so on. `auto` expects a header, refuses a first row that looks like data, and reads a .txt file without "
        "delimiters as one text a line, unless its first line is a common column name.",
        allowed="true, false or 'auto'",
    )
    max_bytes: Count | None = setting(
        None,
        "How much a packed file may hold. Left out: 1 GiB or 100 times its size, the larger of the two.",
        allowed="a whole number of bytes above 0, or nothing",
    )
    drop_empty: Annotated[bool, Strict()] = setting(
        False,
        "Leave out rows whose text or label is empty. They are counted and said; otherwise they are refused.",
        allowed="true or false",
    )
    drop_duplicates: Annotated[bool, Strict()] = setting(
        False,
        "Leave out training rows whose text stands in the validation or test rows too, word for word or nearly, and "
        "all but the first of training rows with the same text and label. They are counted and said.",
        allowed="true or false",
    )
    streaming: Annotated[bool, Strict()] = setting(
        False,
        "Read the training rows while they are needed, for data that do not fit into memory: JSONL, CSV, TSV (a row a "
        "line) and Parquet, as files, addresses or on the hub. Validation rows are given then, and an epoch is as many "
        "steps as the sizes of the files make likely, where the files do not say how many rows they have.",
        allowed="true or false",
    )
    shuffle_buffer_size: Count = setting(
        10_000,
        "How many rows of a stream are read and shuffled at once, from 16 places of the data or more where the files "
        "allow it.",
        allowed="a whole number of rows above 0",
    )
    max_bad_rows: Annotated[Whole, Field(ge=0)] = setting(
        0,
        "How many rows of a stream that cannot be learned from are left out, each named, before the run ends. Without "
        "streaming all rows are checked before the first step.",
        allowed="a whole number, 0 or above",
    )
    validation_fraction: Number = setting(
        0.1,
        "The share of the training rows that is set aside where `data.validation` is left out: stratified by label "
        "where rows have one, whole groups where `data.columns.group` or the task has them.",
        allowed="a share above 0 and below 1",
        gt=0,
        lt=1,
    )
    test_fraction: Number = setting(
        0,
        "The share of the training rows that is set aside as test rows in the same way, where `data.test` is left out "
        "and the data set has none of its own.",
        allowed="a share from 0, below 1",
        ge=0,
        lt=1,
    )
    max_train_samples: Count | None = setting(
        None,
        "Train on this many rows, drawn at random with `data.seed`. Left out: all.",
        allowed="a whole number above 0, or nothing (all rows)",
    )
    max_eval_samples: Count | None = setting(
        None,
        "Evaluate on this many rows of each of validation and test, drawn at random with `data.seed`. Left out: all.",
        allowed="a whole number above 0, or nothing (all rows)",
    )
    seed: Seed = setting(
        42,
        "Draws the validation share and the samples. Apart from `training.seed`, so that runs with several training "
        "seeds see the same rows.",
        allowed=f"a whole number from 0 to {LARGEST_SEED}",
    )


class Preprocessing(Section):
    max_length: Annotated[Whole, Field(ge=3)] | None = setting(
        None,
        "The most tokens of a text, the model's own two or more marks included; what is longer is cut at the end and "
        "counted, or for question answering read in windows. Left out: what the model can take; 384 for questions.",
        allowed="a whole number of tokens, 3 or more and no more than the model takes, or nothing (the model's)",
    )
    long_text: Literal["truncate", "head_tail", "windows"] = setting(
        "truncate",
        "What becomes of a single text above `preprocessing.max_length`. `truncate`: its end is cut off. `head_tail`: "
        "its middle is left out, a quarter of what is kept is from the beginning. `windows`: all of it is read, window "
        "by window, and the logits are pooled, in training and prediction alike. How many rows it concerns is said.",
        allowed="'truncate', 'head_tail' or 'windows'",
    )
    window_pooling: Literal["mean", "max"] = setting(
        "mean",
        "How the logits of the windows of one text become those of the text.",
        allowed="'mean' or 'max'",
    )
    doc_stride: Annotated[Whole, Field(ge=0)] = setting(
        128,
        "Question answering: how many tokens of a long context neighbouring windows share.",
        allowed="a whole number of tokens from 0, less than a window leaves for the context",
    )
    word_boundaries: Literal["auto", "whitespace", "punctuation", "characters"] = setting(
        "auto",
        "Token classification: where a text is split into words. `whitespace`: at whitespace alone. `punctuation`: "
        "also round punctuation marks and Chinese characters. `characters`: each character is a word. `auto` splits as "
        "the training rows are split and stores which that was, so that `predict` and `evaluate` read the same words. "
        "Rows that are lists of words are never split.",
        allowed="'auto', 'whitespace', 'punctuation' or 'characters'",
    )
    padding: Literal["none", "longest", "max_length"] = setting(
        "none",
        "`none`: the layers see real tokens only, which is fastest. `longest`: pad to the longest text of a "
        "micro-batch. `max_length`: pad to `preprocessing.max_length`, for devices that want fixed shapes. The result "
        "is the same.",
        allowed="'none', 'longest' or 'max_length'",
    )
