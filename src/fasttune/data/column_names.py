"""Common names of columns, by what they hold, in the languages in which people write spreadsheets."""

from __future__ import annotations

import re

TEXT_NAMES = (
    *("text", "texts", "sentence", "review", "content", "comment", "message", "body", "document", "question"),
    *("sentence1", "text1", "text_a", "premise", "question1", "query1", "#1 string", "comment_text", "review_text"),
    *("review_body", "tweet", "utterance", "post", "news", "article", "description", "feedback", "statement"),
    *("kommentar", "bewertungstext", "rezension", "nachricht", "beschreibung", "inhalt", "satz"),
    *("texte", "commentaire", "avis", "phrase", "contenu", "texto", "comentario", "reseña", "resena", "frase"),
    *("mensaje", "testo", "commento", "recensione", "comentário", "avaliação", "текст", "отзыв", "комментарий"),
    *("文本", "内容", "评论", "评价内容", "正文", "句子", "テキスト", "本文", "レビュー", "텍스트", "내용", "리뷰"),
)
PAIR_NAMES = (
    *("text_pair", "sentence2", "text2", "text_b", "hypothesis", "question2", "query2", "#2 string", "sentence_b"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "stars", "star", "rating", "sentiment", "target", "topic", "quality"),
    *("score", "polarity", "emotion", "intent", "gold_label", "is_duplicate", "star_rating", "review_rating"),
    *("sterne", "bewertung", "note", "kategorie", "klasse", "stimmung", "thema"),
    *("étiquette", "etiquette", "catégorie", "categorie", "classe", "étoiles", "etoiles", "sentiment"),
    *("etiqueta", "categoría", "categoria", "clase", "estrellas", "puntuación", "calificación", "nota", "etichetta"),
    *("voto", "stelle", "classificação", "estrelas", "метка", "класс", "оценка", "категория", "тональность"),
    *(
        "标签",
        "类别",
        "分类",
        "评分",
        "情感",
        "星级",
        "ラベル",
        "カテゴリ",
        "評価",
        "라벨",
        "레이블",
        "평점",
        "카테고리",
    ),
)
# Columns that say where a text comes from: never guessed by their cells.
ABOUT_TEXTS = frozenset(
    (
        *(
            "date",
            "datum",
            "fecha",
            "data",
            "year",
            "jahr",
            "month",
            "time",
            "author",
            "autor",
            "auteur",
            "user",
            "username",
        ),
        *("source", "quelle", "url", "link", "lang", "language", "sprache", "country", "page", "file", "filename"),
    )
)
# What spreadsheets have in the last row, under the columns that are summed up or averaged.
TOTAL_NAMES = frozenset(
    (
        *("total", "totals", "grand total", "sum", "average", "mean", "summe", "gesamt", "gesamtsumme", "durchschnitt"),
        *("total général", "somme", "moyenne", "suma", "promedio", "totale", "media", "totaal", "итого", "всего"),
        *("合计", "总计", "小计", "平均", "合計", "합계"),
    )
)
IN_BRACKETS = re.compile(r"\s*[(\[\uff08].*?[)\]\uff09]\s*")
BETWEEN_WORDS = re.compile(r"[^\w#]+|_+")


def plain_name(name: str) -> str:
    """A column's name without case, surrounding blanks and what stands in brackets: `Sterne (1-5)` -> `sterne`."""
    return IN_BRACKETS.sub("", name.strip().lower()).strip() or name.strip().lower()


def words_of_name(name: str) -> set[str]:
    """The words in a column's name: `Kommentar des Kunden` -> kommentar, des, kunden."""
    return {word for word in BETWEEN_WORDS.split(plain_name(name)) if word}
