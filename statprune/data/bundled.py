"""The bundled text: the Python documentation that every CPython carries."""

import pydoc_data.topics
import re
from collections.abc import Sequence

from statprune.data.sources import EVALUATION, Source


class Bundled(Source):
    """The Python documentation topics of this CPython."""

    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """The topics, longest first, without repeated paragraphs.

        Topics contain each other's sections: a paragraph counts once, in the longest topic that has it, so that no
        paragraph is in both parts. Every fifth topic is for evaluation.
        """
        return bundled_topics(part)


def bundled_topics(part: str) -> list[str]:
    """As ``Bundled.documents``."""
    seen: set[str] = set()
    topics = pydoc_data.topics.topics
    texts = []
    for name in sorted(topics, key=lambda key: (-len(topics[key]), key)):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                paragraphs.append(paragraph)
        text = "\n\n".join(paragraphs)
        if len(text) >= 500:
            texts.append(text)
    is_evaluation = part == EVALUATION
    return [text for index, text in enumerate(texts) if (index % 5 == 3) is is_evaluation]
