"""Text that every Python has: the language reference behind `help()`."""

from dataclasses import dataclass
from pydoc_data.topics import topics

import numpy as np


@dataclass(frozen=True)
class Text:
    """A text as character codes, in two parts.

    Attributes:
      characters: the vocabulary; a code is an index into it.
      train: codes of the training part.
      validation: codes of the validation part.
    """

    characters: str
    train: np.ndarray
    validation: np.ndarray

    def decode(self, codes: np.ndarray) -> str:
        """The string of some codes."""
        return "".join(self.characters[int(code)] for code in codes)

    def unigram_entropy(self) -> float:
        """Entropy of the validation part's characters, in nats.

        The loss of the best model that knows the frequencies (of the very text it is tested on)
        and nothing of the context: what a language model has to beat.
        """
        counts = np.bincount(self.validation, minlength=len(self.characters))
        frequencies = counts[counts > 0] / counts.sum()
        return float(-(frequencies * np.log(frequencies)).sum())

    def batch(self, step: int, batch_size: int, context: int, seed: int) -> np.ndarray:
        """Random windows of the training part, of shape (batch_size, context + 1).

        A pure function of the step: a resumed run sees the windows the straight run would have.
        """
        random = np.random.default_rng((seed, step))
        starts = random.integers(0, len(self.train) - context, batch_size)
        return self.train[starts[:, None] + np.arange(context + 1)]

    def validation_windows(self, count: int, context: int) -> np.ndarray:
        """At most `count` windows spread evenly over the validation part, without overlap."""
        available = (len(self.validation) - 1) // context
        starts = np.linspace(0, available - 1, min(count, available)).astype(int) * context
        return self.validation[starts[:, None] + np.arange(context + 1)]


def load(validation_fraction: float = 0.1) -> Text:
    """The reference, its last topics (in alphabetical order) held out for validation.

    Topics quote each other at length (`with` is part of `compound`), so a paragraph is kept only
    where it appears first; the validation part would otherwise be known by heart.
    """
    seen: set[str] = set()
    pages = []
    for name in sorted(topics):
        paragraphs = [part for part in topics[name].split("\n\n") if part.strip()]
        new = [part for part in paragraphs if part.strip() not in seen]
        seen.update(part.strip() for part in new)
        if new:
            pages.append("\n\n".join(new) + "\n\n")
    size = sum(map(len, pages))
    held_out = len(pages)
    while sum(map(len, pages[held_out:])) < validation_fraction * size:
        held_out -= 1
    characters = "".join(sorted(set("".join(pages))))
    code = {character: index for index, character in enumerate(characters)}
    train, validation = (
        np.array([code[character] for page in part for character in page], np.int32)
        for part in (pages[:held_out], pages[held_out:])
    )
    return Text(characters, train, validation)
