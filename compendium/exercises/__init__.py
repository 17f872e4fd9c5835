"""Exercises that check themselves, by what an answer does and not by a stored answer.

    feedback         what a check asks, and how it answers: open, not yet, right
    small            8 × 8 digits, a network for them and its gradient: what the exercises run on
    nb01_intuition … the checks of one notebook each, in the order of its exercises
    writing          exercise cells and worked solutions of the notebooks, from `exercises/NN_name.py`

Checks compare an answer with the library or with a property that it must have (a bound, a level, a closed form), and
know the usual mistakes by what comes out of them. A notebook calls `check`; the module of its checks is imported there
and then, because checks decide no number of a run.
"""

from compendium.exercises.feedback import Feedback, check, feedback_on

__all__ = ["Feedback", "check", "feedback_on"]
