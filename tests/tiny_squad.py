"""Questions about tiny texts that can be learned: "film" asks for the one word of judgement in a text, "plot" for the one thing."""

import random

from evaluation.tasks.squad import SQUAD_1, SQUAD_2
from evaluation.tasks.task import Questions, TaskData

ASKED = {"film": ["good", "fine", "bad", "poor"], "plot": ["actor", "scene", "music"]}
FILLERS = ["the", "a", "was", "and", "very"]


def make_questions(count: int, seed: int, unanswerable: float = 0.0, longest: int = 24) -> Questions:
    """`count` questions about texts of 6 to `longest` words; a share `unanswerable` asks for what its text does not hold."""
    source = random.Random(seed)
    ids, questions, contexts, answers, starts = [], [], [], [], []
    for number in range(count):
        asked = source.choice(list(ASKED))
        words = source.choices(FILLERS, k=source.randint(4, longest - 2))
        missing = source.random() < unanswerable
        for kind, choices in ASKED.items():
            if not (missing and kind == asked):
                words.insert(source.randrange(len(words) + 1), source.choice(choices))
        text = " ".join(words)
        found = next((word for word in words if word in ASKED[asked]), None)
        ids.append(f"q{number}")
        questions.append(f"the {asked}")
        contexts.append(text)
        answers.append([] if found is None else [found])
        starts.append([] if found is None else [len(" ".join(words[: words.index(found)])) + bool(words.index(found))])
    return Questions(ids, questions, contexts, answers, starts)


def make_span_data(train: int = 256, dev: int = 48, unanswerable: float = 0.0) -> TaskData:
    """SQuAD 1.1, or 2.0 where some are `unanswerable`."""
    task = SQUAD_2 if unanswerable else SQUAD_1
    sets = make_questions(train, 1, unanswerable), {"dev": make_questions(dev, 2, unanswerable)}
    return TaskData(task, *sets, f"{train} {dev} {unanswerable}")
