"""Text from a model that says which character comes next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import philox
from ..faults import RuntimeFault, suggestion


def write_text(
    scores: Callable[[np.ndarray], np.ndarray],
    alphabet: Sequence[str],
    prompt: str,
    count: int,
    *,
    length: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """``count`` characters that follow a prompt.

    Parameters
    ----------
    scores
        From numbers of characters i32[1, length] to scores [1, length, characters] of what comes
        next at each place, by what stands there and before.
    alphabet
        The characters by number: ``fields["text"].classes`` of the data.
    prompt
        What the text starts with; not empty.
    length
        How many characters the model is shown at most.
    temperature
        Scores are divided by it: below 1 the likely becomes likelier; 0 takes the likeliest.
    seed
        Of the draws; the same seed gives the same text.

    Raises
    ------
    RuntimeFault
        E802 for a character that the model does not know.
    """
    numbers = {character: number for number, character in enumerate(alphabet)}
    unknown = [character for character in prompt if character not in numbers]
    if unknown or not prompt:
        message = f"the model does not know {unknown[0]!r}" if unknown else "the prompt is empty"
        raise RuntimeFault("E802", message, suggestion("", alphabet) if unknown else None)
    codes = [numbers[character] for character in prompt]
    uniform = philox.uniform(philox.Stream(seed, 0, "text"), (count,), np.dtype(np.float64))
    for draw in uniform:
        seen = codes[-length:]
        # What stands behind the last character does not bear on its score.
        window = np.zeros((1, length), np.int32)
        window[0, : len(seen)] = seen
        codes.append(_pick(scores(window)[0, len(seen) - 1].astype(np.float64), temperature, draw))
    return "".join(alphabet[code] for code in codes[len(prompt) :])


def _pick(scores: np.ndarray, temperature: float, draw: float) -> int:
    if temperature == 0:
        return int(scores.argmax())
    weights = np.exp((scores - scores.max()) / temperature)
    sums = np.cumsum(weights)
    return int(min(np.searchsorted(sums, draw * sums[-1], side="right"), len(sums) - 1))
