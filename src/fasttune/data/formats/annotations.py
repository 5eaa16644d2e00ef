"""Read the exports of annotation tools: doccano, Label Studio, Prodigy and spaCy.

They write JSON, one object for each text, with the entities as spans of characters or the classes as lists. Each
object becomes a row with `id`, `text` and either `spans` (objects with start, end and label) or `label`. The tool is
recognised by the first objects of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from fasttune.data.problems import counted
from fasttune.errors import DataError, Problem, shown

Row = dict[str, Any]
Convert = Callable[[Any], Row | None]  # None: the annotator rejected or skipped the text


@dataclass
class Annotations:
    """The rows of one file, as `tool` writes them; how many objects hold no annotation, and how many hold several."""

    tool: str
    convert: Convert
    holds_classes: bool = False
    num_rejected: int = 0
    num_several: int = 0

    def row(self, value: Any, where: str) -> Row | None:
        """The row of one object, None if it was rejected; DataError if it has another form than the first one."""
        try:
            row = self.convert(value)
        except DataError as error:
            raise DataError(*(replace(problem, where=where) for problem in error.problems)) from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise DataError(
                Problem(
                    code="E126",
                    where=where,
                    found=shown(value),
                    expected=f"an annotated text as {self.tool} writes it, like the first one of the file",
                )
            ) from None
        if row is not None and self.holds_classes and row.get("spans") == []:
            row = None  # a text without classes, among texts that have some
        if row is None:
            self.num_rejected += 1
        elif isinstance(value, dict) and len(_kept(value)) > 1:
            self.num_several += 1
        return row

    def notes(self, where: str) -> tuple[str, ...]:
        notes = [f"{where}: read as an export of {self.tool}"]
        if self.num_rejected:
            notes.append(
                f"{where}: left out {counted(self.num_rejected, 'text')} that the annotators rejected or skipped"
            )
        if self.num_several:
            notes.append(f"{where}: used the first annotation of {counted(self.num_several, 'text')} with several")
        return tuple(notes)


def annotations_of(first: Sequence[Any]) -> Annotations | None:
    """How to read a file that begins with these objects; None if no annotation tool writes such objects.

    Several are looked at, because the first texts may have no entity.
    """
    for value in first:
        for tool, (recognise, convert) in TOOLS.items():
            with suppress(KeyError, TypeError, ValueError, IndexError, AttributeError):
                if recognise(value):
                    return Annotations(tool, convert, _hold_classes(first, convert))
    return None


def _hold_classes(values: Sequence[Any], convert: Convert) -> bool:
    for value in values:
        with suppress(KeyError, TypeError, ValueError, IndexError, AttributeError, DataError):
            row = convert(value)
            if row is not None and row.get("label"):
                return True
    return False


def _span(start: Any, end: Any, label: Any) -> Row:
    if type(start) is not int or type(end) is not int:
        raise ValueError
    return {"start": start, "end": end, "label": str(label)}


def _row(value: Mapping[str, Any], text: Any, **targets: Any) -> Row:
    if not isinstance(text, str):
        raise TypeError
    return {**({"id": value["id"]} if value.get("id") is not None else {}), "text": text, **targets}


# --- doccano: {"text": ..., "label": [[0, 5, "PER"]]}, or "entities" as objects, with "relations" beside them ---


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and type(value[0]) is int and type(value[1]) is int


def _triples(value: Mapping[str, Any]) -> list[Any] | None:
    cell = next(
        (value[key] for key in ("label", "labels", "entities", "spans") if isinstance(value.get(key), list)), None
    )
    return cell if cell is not None and all(map(_is_triple, cell)) else None


def _is_doccano_spans(value: Any) -> bool:
    return isinstance(value["text"], str) and bool(_triples(value))


def _doccano_spans(value: Any) -> Row:
    triples = _triples(value)
    if triples is None:
        raise ValueError
    return _row(value, value["text"], spans=[_span(*span) for span in triples])


def _is_doccano_relations(value: Any) -> bool:
    entities = value["entities"]
    is_text = isinstance(value["text"], str) and isinstance(entities, list) and bool(entities)
    return is_text and all("start_offset" in entity for entity in entities)


def _doccano_relations(value: Any) -> Row:
    spans = [_span(entity["start_offset"], entity["end_offset"], entity["label"]) for entity in value["entities"]]
    return _row(value, value["text"], spans=spans)


# --- Label Studio: JSON (a task with its annotations) and JSON-MIN (a task with its labels beside the data) ---


TIMES = ("created_at", "updated_at")
SPAN_LABELS = ("labels", "hypertextlabels")


def _texts_of(data: Mapping[str, Any]) -> Row:
    """The texts of a task: `text` if there is one, otherwise all, whatever their keys."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    if not texts:
        raise ValueError
    return {"text": texts["text"]} if "text" in texts else texts


def _is_label_studio(value: Any) -> bool:
    return isinstance(value["data"], dict) and isinstance(value["annotations"], list)


def _kept(value: Mapping[str, Any]) -> list[Any]:
    """The annotations of a task that the annotators did not cancel."""
    annotations = value.get("annotations") or []
    return [annotation for annotation in annotations if not annotation.get("was_cancelled")]


def _label_studio(value: Any) -> Row | None:
    """Spans, or the classes of one control; a text without classes is not annotated yet."""
    kept = _kept(value)
    if not kept:
        return None
    spans: list[Row] = []
    choices: dict[str, list[str]] = {}
    for result in kept[0]["result"]:
        found = result.get("value", {})  # relations have none
        labels = next((found[key] for key in SPAN_LABELS if key in found), None)
        if labels is not None:
            spans += [_span(found["start"], found["end"], label) for label in labels]
        elif "choices" in found or "rating" in found:
            classes = found.get("choices") or [str(found["rating"])]
            choices.setdefault(result.get("from_name", ""), []).extend(classes)
    if len(choices) + bool(spans) > 1:
        raise DataError(_several_controls([*choices, *(["spans"] if spans else [])]))
    row = {**({"id": value["id"]} if value.get("id") is not None else {}), **_texts_of(value["data"])}
    if choices:
        return {**row, "label": next(iter(choices.values()))}
    return {**row, "spans": spans}


def _several_controls(names: Sequence[str]) -> Problem:
    return Problem(
        code="E147",
        where="",
        found=f"a text is annotated by several controls ({', '.join(names)}), which are several tasks",
        hint="export the project once for each control, or use JSON-MIN, in which each control is a column",
    )


def _min_spans(value: Mapping[str, Any]) -> list[Any] | None:
    for cell in value.values():
        if isinstance(cell, list) and cell and all(isinstance(span, dict) and "labels" in span for span in cell):
            return cell
    return None


def _min_choices(value: Mapping[str, Any]) -> list[str] | None:
    """The classes of a text: an object if there are several, a plain cell beside the text if there is one."""
    several = next((cell["choices"] for cell in value.values() if isinstance(cell, dict) and "choices" in cell), None)
    if several is not None:
        return several
    plain = [cell for name, cell in value.items() if isinstance(cell, str) and name not in ("text", *TIMES)]
    return plain if "text" in value and len(plain) == 1 else None


def _is_label_studio_min(value: Any) -> bool:
    has_choices = any(isinstance(cell, dict) and "choices" in cell for cell in value.values())
    return "annotator" in value and "annotation_id" in value and (has_choices or _min_spans(value) is not None)


def _label_studio_min(value: Any) -> Row:
    spans = [_span(span["start"], span["end"], label) for span in _min_spans(value) or () for label in span["labels"]]
    texts = {name: cell for name, cell in value.items() if name not in TIMES}
    row = {**({"id": value["id"]} if value.get("id") is not None else {}), **_texts_of(texts)}
    choices = _min_choices(value)
    return {**row, "label": choices} if choices is not None and not spans else {**row, "spans": spans}


# --- Prodigy: {"text": ..., "spans": [...], "answer": "accept"}, or "accept" with the chosen options ---


def _is_prodigy(value: Any) -> bool:
    return isinstance(value["text"], str) and value["answer"] in ("accept", "reject", "ignore")


def _prodigy(value: Any) -> Row | None:
    if value["answer"] != "accept":
        return None
    row_id = {"id": value.get("_input_hash")}
    if "options" in value:
        return _row(row_id, value["text"], label=[str(option) for option in value["accept"]])
    if "label" in value and "spans" not in value:
        return _row(row_id, value["text"], label=[str(value["label"])])
    return _row(row_id, value["text"], spans=[_span(s["start"], s["end"], s["label"]) for s in value.get("spans", [])])


# --- spaCy: [text, {"entities": [[0, 5, "PER"]]}], as its version 2 trained on, or with "cats" ---


def _is_spacy(value: Any) -> bool:
    text, about = value
    return isinstance(text, str) and isinstance(about, dict) and ("entities" in about or "cats" in about)


def _spacy(value: Any) -> Row:
    text, about = value
    if "cats" in about and not about.get("entities"):
        return _row({}, text, label=[name for name, chosen in about["cats"].items() if chosen >= 0.5])
    return _row({}, text, spans=[_span(*span) for span in about["entities"]])


TOOLS: dict[str, tuple[Callable[[Any], bool], Convert]] = {
    "Prodigy": (_is_prodigy, _prodigy),
    "Label Studio": (_is_label_studio, _label_studio),
    "Label Studio (JSON-MIN)": (_is_label_studio_min, _label_studio_min),
    "doccano": (_is_doccano_spans, _doccano_spans),
    "doccano (with relations)": (_is_doccano_relations, _doccano_relations),
    "spaCy": (_is_spacy, _spacy),
}
