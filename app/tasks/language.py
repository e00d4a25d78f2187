"""Which language a text is in, by py3langid, among those that people commonly write."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "ko": "Korean", "lt": "Lithuanian",
    "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
UNKNOWN = "the language of the input"
"""What a prompt is told instead of a name where the language is not clear."""
_loading = threading.Lock()
_LONGEST = 4000
_SURE, _LIKELY = 0.8, 0.6
"""Of py3langid's calibrated probability: sentences of five words give 0.85 to 1.0, a greeting or a name under 0.5."""
_LETTERS = re.compile(r"[^\W\d_]")
_FEW = 12
"""Letters below which no language is sure: a name or a greeting is at home in many."""
_IDEOGRAMS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+|[\w.+-]+@[\w.-]+", re.DOTALL)


class Detected(NamedTuple):
    """A language; ``likely``: enough to answer in it; ``sure``: enough to call another one wrong."""

    code: str
    sure: bool
    likely: bool = True

    @property
    def name(self) -> str:
        """The language's English name."""
        return LANGUAGES[self.code]


def detect(text: str) -> Detected | None:
    """Return the language of a text, None where there is nothing to tell it by. Takes a second at its first call."""
    prose = _NOT_PROSE.sub(" ", text[:_LONGEST])
    letters = len(_LETTERS.findall(prose))
    if not letters:
        return None
    code, probability = _identifier().classify(prose)
    enough = letters >= _FEW or bool(_IDEOGRAMS.search(prose))
    return Detected(code, enough and float(probability) >= _SURE, enough and float(probability) >= _LIKELY)


def _identifier() -> LanguageIdentifier:
    with _loading:  # several parts of a list may be the first to ask
        return _loaded()


@cache
def _loaded() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.set_languages(list(LANGUAGES))
    return found
