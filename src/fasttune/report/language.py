"""The sentences of a report in the reader's language. English is the source; `zh.json` has the Chinese ones."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

from fasttune.report.highlights import Sentence

CODES = ("en", "zh")


class Language:
    """`say(template, **values)`: the template in this language, with the values in it."""

    def __init__(self, code: str):
        self.code = code
        self._words: dict[str, str] = {}
        if code != "en":
            text = importlib.resources.files("fasttune.report").joinpath(f"{code}.json").read_text("utf-8")
            self._words = json.loads(text)

    def say(self, template: str, **values: Any) -> str:
        """A template that this language lacks, such as the name of a label, stays as it is."""
        text = self._words.get(template, template)
        if not values:
            return text
        shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
        return text.format(**shown)

    def sentence(self, sentence: Sentence) -> str:
        """Names of splits and metrics among the values are in this language too."""
        values = {name: self.say(value) if name == "split" else value for name, value in sentence.values.items()}
        return self.say(sentence.template, **values)
