"""The encoding of a text file that is not UTF-8: certain, or only a guess for a hint.

It is certain if all other encodings in use give something that no one writes. Many files of spreadsheets in Western
Europe are in cp1252, of which `für` decodes to the same letters in all Latin code pages, to a mixture of scripts in all
others. French `très` is `trčs` in cp1250, so only the user can tell.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
WORDS_WITH_HIGH_BYTES = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
WORDS_LOOKED_AT = 20_000
MULTI_BYTE_ENCODINGS = ("gb18030", "big5", "shift_jis", "euc_kr")
WESTERN = "cp1252"
SINGLE_BYTE_ENCODINGS = (
    *(WESTERN, "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8-r", "iso8859-5", "cp866"),
    "cp850",
)
LATIN_ENCODINGS = (WESTERN, "cp1250", "cp1254", "cp1257", "cp850", "mac-roman")  # in the order of their use
ASCII_LETTERS = [bytes([code]) for code in (*range(65, 91), *range(97, 123))]
WORDS_SHOWN = 3
LEAST_ASCII = 3  # ASCII letters for each high byte, in Latin scripts
OLD_MAC = "mac-roman"  # only where lines end with a carriage return alone
MOST_ACCENTED = 0.5  # of the letters of a Latin word of at least four letters
# The commonest characters of Chinese texts; together they are a tenth of any such text.
COMMON_CHINESE = frozenset("的了是不一在有我人这這")
CHINESE_SHARE, OTHER_SHARE = 0.04, 0.02


def certain_encoding(data: bytes) -> str | None:
    """gb18030 or cp1252 if the bytes are plausible text in no other encoding; otherwise None."""
    if _is_certainly_chinese(data):
        return "gb18030"
    if any(_common_share(data, encoding) > CHINESE_SHARE for encoding in MULTI_BYTE_ENCODINGS):
        return None
    old_mac = [OLD_MAC] if b"\r" in data and b"\n" not in data else []
    readings = _readings(data, (*SINGLE_BYTE_ENCODINGS, *old_mac))
    return WESTERN if list(readings.values()) == [WESTERN] and _decodes(data, WESTERN) else None


def guess_encoding(data: bytes) -> str:
    """A guess for a hint; nothing is decoded with it. Empty if there is none.

    Latin scripts have some high bytes among ASCII letters; Chinese, Japanese, Korean and Cyrillic text has runs.
    """
    sample = data[: 1 << 20]
    runs = HIGH_BYTES.findall(sample)
    num_high = sum(len(run) for run in runs)
    num_ascii = sum(sample.count(letter) for letter in ASCII_LETTERS)
    if num_ascii > LEAST_ASCII * num_high or sum(len(run) for run in runs if len(run) == 1) * 2 > num_high:
        return next(iter(_readings(sample, LATIN_ENCODINGS).values()), "")
    for encoding in MULTI_BYTE_ENCODINGS:
        if _decodes(sample, encoding):
            return encoding
    num_letters = sum(byte >= 0xC0 for run in runs for byte in run)
    return "cp1251" if num_letters * 10 > num_high * 9 else ""


def latin_readings(data: bytes) -> dict[str, str]:
    """The Latin code pages that give plausible words, each with some of them; pages that agree are one."""
    readings = _readings(data[: 1 << 20], LATIN_ENCODINGS)
    return {encoding: ", ".join(words[:WORDS_SHOWN]) for words, encoding in readings.items()}


def _readings(data: bytes, encodings: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The plausible readings of the words with high bytes, each with the first encoding that gives it."""
    words = sorted(set(WORDS_WITH_HIGH_BYTES.findall(data)))[:WORDS_LOOKED_AT]
    readings: dict[tuple[str, ...], str] = {}
    for encoding in encodings:
        try:
            decoded = tuple(word.decode(encoding) for word in words)
        except UnicodeDecodeError:
            continue
        if all(map(_is_plausible, decoded)):
            readings.setdefault(decoded, encoding)  # pages that give the same letters are one reading
    return readings


def _is_certainly_chinese(data: bytes) -> bool:
    share = _common_share(data, "gb18030")
    others = (encoding for encoding in MULTI_BYTE_ENCODINGS if encoding != "gb18030")
    return share > CHINESE_SHARE and all(_common_share(data, encoding) < OTHER_SHARE for encoding in others)


def _common_share(data: bytes, encoding: str) -> float:
    """The share of common Chinese characters among all that are not ASCII; 0 if the bytes do not decode."""
    try:
        characters = [character for character in data.decode(encoding) if not character.isascii()]
    except UnicodeDecodeError:
        return 0.0
    return sum(character in COMMON_CHINESE for character in characters) / len(characters) if characters else 0.0


def _is_plausible(word: str) -> bool:
    """Whether someone may have written this: letters of one script, no capital after a small one, no symbol inside."""
    letters = [character for character in word if unicodedata.category(character)[0] in "LM"]
    if any(unicodedata.category(character) in ("Cc", "Cn", "Co") for character in word):
        return False
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in letters} - {"FEMININE", "MASCULINE"}
    if len(scripts) > 1 or any(first.islower() and second.isupper() for first, second in pairwise(word)):
        return False
    inner = word.strip("".join(character for character in set(word) if unicodedata.category(character)[0] not in "LM"))
    if any(unicodedata.category(character)[0] not in "LMP" for character in inner):
        return False
    accented = sum(not letter.isascii() for letter in letters)
    return scripts != {"LATIN"} or len(letters) < 4 or accented <= MOST_ACCENTED * len(letters)


def _decodes(data: bytes, encoding: str) -> bool:
    # The sample may end inside a character, which an incremental decoder tolerates.
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=False)
    except UnicodeDecodeError:
        return False
    return True
