"""ROUGE-L: longest common subsequence of the answer and the true answer."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import groupby
from typing import Any, ClassVar

from unsee.metrics import METRICS, Metric, Output, normalize_answer, plain_characters
from unsee.metrics.keywords import first_sentence
from unsee.types import Sample

# Scripts that put no spaces between words: every character is a token.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class UnicodeTokenizer:
    """Splits a text into words of letters, marks and digits of any script, with Porter's stemmer.

    Of an ASCII text, the tokens are those of rouge_score. In scripts without spaces between words,
    every character is a token.

    Example:
        >>> UnicodeTokenizer().tokenize("Ada lives in Zürich. 她住在巴黎")
        ['ada', 'live', 'in', 'zürich', '她', '住', '在', '巴', '黎']
    """

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of a text."""
        composed = plain_characters(text).lower()
        tokens: list[str] = []
        for kind, characters in groupby(composed, key=_kind):
            if kind == "unspaced":
                tokens += characters
            elif kind == "word":
                token = "".join(characters)
                # As in rouge_score: short words are not stemmed.
                tokens.append(_stem(token) if token.isascii() and len(token) > 3 else token)
        return tokens


@cache
def _kind(character: str) -> str:
    if unicodedata.category(character)[0] not in "LMN":
        return ""
    unspaced = unicodedata.name(character, "").startswith(_UNSPACED)
    return "unspaced" if unspaced else "word"


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()


def _stem(token: str) -> str:
    return str(_stemmer().stem(token))


@cache
def _scorer(unicode: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    if unicode:
        return RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())
    return RougeScorer(["rougeL"], use_stemmer=True)


@METRICS.register("rouge_l", source="MLLMU-Bench, arXiv 2410.22108")
class RougeL(Metric):
    """ROUGE-L F-measure with stemming, as reported by MLLMU-Bench.

    Source: Lin, 2004; MLLMU-Bench, arXiv 2410.22108.

    Differs: letters of every script are tokens, see `UnicodeTokenizer`; rouge_score drops what is
    not ASCII. Scores of ASCII texts are the same. `rouge_l_ascii` is the published one. With the
    rule "safeeraser", the default of SafeEraser, the score is the precision.

    Example:
        Three of the four words of the answer are, in order, among the five of the true answer:
        precision 3/4, recall 3/5.

        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeL
        >>> sample = Sample("1", "Where does Ada Berg live?", "Ada Berg lives in Oslo.")
        >>> round(RougeL().score(sample, Output("Ada lives near Oslo")), 3)
        0.667
    """

    unicode: ClassVar[bool] = True
    rules: ClassVar[tuple[str, ...]] = ("f_measure", "safeeraser")
    rule: str = "f_measure"

    def applies(self, sample: Sample) -> bool:
        """Whether the task is generation or caption."""
        return sample.task in ("generation", "caption")

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        scorer = _scorer(self.unicode)
        # Without a token in the true answer, such as Cyrillic in the ASCII variant, all score 0.
        if not scorer._tokenizer.tokenize(sample.answer):
            return float("nan")
        return float(
            self._statistic(scorer.score(sample.answer, self._scored(output.text))["rougeL"])
        )

    def _scored(self, text: str) -> str:
        """The part of the answer that is scored."""
        return text

    def _statistic(self, scores: Any) -> float:
        return float(scores.precision if self.rule == "safeeraser" else scores.fmeasure)


@METRICS.register("rouge_l_recall", source="CLEAR, arXiv 2410.18057")
class RougeLRecall(RougeL):
    """ROUGE-L recall with stemming, as reported by CLEAR and FIUBench.

    Source: Lin, 2004; CLEAR, arXiv 2410.18057.

    Differs: letters of every script are tokens, as in `rouge_l`; `rouge_l_recall_ascii` is the
    published one. With the rule "fiubench", the default of FIUBench, the answer is cut before its
    first full stop, and one without scores 0, as in the published script.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeLRecall
        >>> sample = Sample("1", "Where does Ada Berg live?", "Ada Berg lives in Oslo.")
        >>> RougeLRecall().score(sample, Output("Ada lives near Oslo"))
        0.6
    """

    rules: ClassVar[tuple[str, ...]] = ("whole", "fiubench")
    rule: str = "whole"

    def _scored(self, text: str) -> str:
        return first_sentence(text).removesuffix(".") if self.rule == "fiubench" else text

    def _statistic(self, scores: Any) -> float:
        return float(scores.recall)


@METRICS.register("rouge_l_ascii", source="MLLMU-Bench, arXiv 2410.22108")
class RougeLAscii(RougeL):
    """ROUGE-L F-measure with rouge_score's own tokens: ASCII letters and digits.

    Unscored where the true answer has no such token.

    Source: Lin, 2004; MLLMU-Bench, arXiv 2410.22108.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeLAscii
        >>> sample = Sample("1", "Где живёт Ада?", "Ада живёт в Осло.")
        >>> RougeLAscii().score(sample, Output("Ада живёт в Осло."))
        nan
    """

    rules = ()
    unicode: ClassVar[bool] = False


@METRICS.register("rouge_l_recall_ascii", source="CLEAR, arXiv 2410.18057")
class RougeLRecallAscii(RougeLRecall):
    """ROUGE-L recall with rouge_score's own tokens: ASCII letters and digits.

    Unscored where the true answer has no such token.

    Source: Lin, 2004; CLEAR, arXiv 2410.18057.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.rouge import RougeLRecallAscii
        >>> sample = Sample("1", "Where does Ada Berg live?", "Ada Berg lives in Oslo.")
        >>> RougeLRecallAscii().score(sample, Output("Ada lives near Oslo"))
        0.6
    """

    rules = ()
    unicode: ClassVar[bool] = False
