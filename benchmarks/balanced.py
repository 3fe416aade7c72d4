"""A choice of things with as many of each label as there can be."""

from typing import List, Sequence

import numpy as np


def balanced(labels: Sequence[str], count: int, seed: int) -> List[int]:
    """Choose `count` things by their labels, taking the labels in turn.

    Args:
        labels: of each thing.
        count: how many to choose; all of them if there are fewer.
        seed: chooses which.

    Returns:
        The places of those chosen.
    """
    random = np.random.default_rng(seed)
    queues = []
    for label in sorted(set(labels)):
        members = [place for place, other in enumerate(labels) if other == label]
        queues.append([members[place] for place in random.permutation(len(members))])
    rounds = max(map(len, queues), default=0)
    turns = [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
    return turns[:count]
