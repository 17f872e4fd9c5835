"""Self-checks of the exercises: an answer is compared with a digest, so the notebook does not give it away."""

import hashlib

_ANSWERS = {
    # 01 · intuition
    "01.1": "f3dacac98e990f86",
    "01.2": "ad9ad9c2fc2f118c",
    "01.3": "532fddf631e9fc36",
    # 02 · primary results
    "02.1": "ae4d0b3199b82c32",
    "02.2": "ea8726243ad477a4",
    "02.3": "f58c0207897079b6",
    "02.4": "b1bc0e0e160aa9a3",
    "02.5": "31072ecf0ab51008",
    # 03 · sample size
    "03.1": "d35a8ec04b3cff61",
    "03.2": "ac92febfe82fb317",
    "03.3": "07c92eb8e9d0acea",
    # 04 · transferability
    "04.1": "791b1e664536cf3a",
    "04.2": "ed5d73f32977bfe4",
    "04.3": "c9d5c0292100de81",
    # 05 · real life
    "05.1": "91106c0d0c5cc62f",
    "05.2": "c33d7156eca129c2",
    "05.3": "f01f052262aaa7b1",
    # 06 · crafting
    "06.1": "94369e6fe425f7a9",
    "06.2": "4c639d0357fdecff",
    "06.3": "1f9eb1b703dbba24",
    # 07 · boundary attack
    "07.1": "2bcf1fc6c5df1c1c",
    "07.2": "e37d87c6796f0034",
    "07.3": "ea4b80c20b41b8c8",
    # 08 · admixture
    "08.1": "b62b99c5a47c730c",
    "08.2": "3efdd3e44ecdf533",
    "08.3": "c8850aed878f8c71",
    # 09 · embedding space
    "09.1": "cf77a7cd3c59d3af",
    "09.2": "29170c1076e00d9b",
    "09.3": "ad54c0f3e3343f6d",
    # 10 · metric analysis
    "10.1": "5e85ebc41da7a272",
    "10.2": "037720dce14ca432",
    "10.3": "5eeacb37e7db4def",
    # 11 · runtime
    "11.1": "739513021cde0175",
    "11.2": "92bfdcb9d3a6c191",
    # 12 · forensics
    "12.1": "2ed8c5b914faa370",
    "12.2": "0cf8a2380c149120",
    "12.3": "6aa7d9020c2cfd15",
    # 13 · hypothesis tests
    "13.1": "3ca80cc51a261f90",
    "13.2": "cb6d6db30844ccf3",
    "13.3": "c3a4523771c26023",
}


def digest(exercise: str, answer: str) -> str:
    """Digest of an answer as it is stored here; teachers add their own exercises with it."""
    return hashlib.sha256(f"advlib exercise {exercise}: {answer}".encode()).hexdigest()[:16]


def _check(exercise: str, given: str | None) -> None:
    if exercise not in _ANSWERS:
        raise ValueError(f"no exercise {exercise!r}; there are {', '.join(_ANSWERS)}")
    if given is None:
        print(f"Exercise {exercise}: not answered yet")
    else:
        right = digest(exercise, given) == _ANSWERS[exercise]
        print(f"Exercise {exercise}: {'right' if right else 'not yet, think again'}")


def choice(exercise: str, answer: str | None) -> None:
    """Check a letter such as "a"; None says that there is no answer yet."""
    if answer is not None and not (isinstance(answer, str) and len(answer.strip()) == 1):
        raise ValueError(f'answer must be one letter in quotes, such as "a", but is {answer!r}')
    _check(exercise, answer if answer is None else answer.strip().lower())


def number(exercise: str, answer: float | None, digits: int = 2) -> None:
    """Check a number, rounded to `digits` decimals; None says that there is no answer yet."""
    if answer is not None and (isinstance(answer, bool) or not isinstance(answer, (int, float))):
        raise ValueError(f"answer must be a number, but is {answer!r}")
    _check(exercise, answer if answer is None else f"{answer:.{digits}f}")
