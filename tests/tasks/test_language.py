from __future__ import annotations

import pytest

from app.tasks.fulfil import language_verdict
from app.tasks.language import LANGUAGES, detect

_SAMPLES = {
    "ru": "Какие посты рассказывают о переносе базы данных?",
    "uk": "Які дописи розповідають про перенесення бази даних?",
    "en": "Which posts are about moving the database?",
    "de": "Welche Beiträge handeln vom Umzug der Datenbank?",
    "fr": "Quels articles parlent de la migration de la base de données ?",
    "es": "¿Qué publicaciones tratan de la migración de la base de datos?",
    "zh": "哪些文章是关于数据库迁移的？",
    "ja": "データベースの移行についての投稿はどれですか？",
    "ar": "ما هي المنشورات التي تتحدث عن نقل قاعدة البيانات؟",
}


@pytest.mark.parametrize("code", _SAMPLES)
def test_languages_are_told_apart(code: str) -> None:
    found = detect(_SAMPLES[code])
    assert found is not None
    assert (found.code, found.sure, found.name) == (code, True, LANGUAGES[code])


@pytest.mark.parametrize("text", ["", "12345 !?", "https://example.org/путь"])
def test_where_there_is_nothing_to_tell_it_by(text: str) -> None:
    found = detect(text)
    assert found is None or not found.sure


def test_a_word_or_code_is_never_sure() -> None:
    for text in ("ok", "hello", "PostgreSQL", "```\nfor i in range(10):\n    print(i)\n```"):
        found = detect(text)
        assert found is None or not found.sure


def test_verdicts() -> None:
    russian = detect(_SAMPLES["ru"])
    assert language_verdict(russian, {"a": [{"b": _SAMPLES["ru"]}]}) == {"expected": "ru", "answer": "ru", "ok": True}
    assert language_verdict(russian, _SAMPLES["en"]) == {"expected": "ru", "answer": "en", "ok": False}
    assert language_verdict(None, _SAMPLES["en"])["ok"] is None
    assert language_verdict(russian, {"id": "x1"})["ok"] is None
