"""Pieces of work for the tests on a Dask cluster, of module level so that they can be sent."""

import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np


def kill_once(flag):
    """Kill this process the first time that anybody asks, as the system does where memory runs out."""
    try:
        with open(flag, "x"):
            pass
    except FileExistsError:
        return
    time.sleep(0.2)  # others have begun
    os.kill(os.getpid(), signal.SIGKILL)


class KillingReader:
    """Reads rows; in the middle of a fit, the process that reads is killed."""

    def __init__(self, values, flag, armed):
        self.values, self.flag, self.armed = values, str(flag), str(armed)

    def __call__(self):
        if Path(self.armed).exists():
            kill_once(self.flag)
        return self.values


def squared(item, *shared):
    return item**2 + sum(shared)


def fails_at_three(item):
    if item == 3:
        raise ValueError("three is no number")
    return item


def slow(item):
    time.sleep(0.3)
    return item


def killing_attack(model, images, labels, *, flag, rng):
    """The boundary attack, in whose middle the process is killed."""
    from advlib import attacks

    start = rng.bit_generator.state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an image has no start
        attacks.boundary(model, images, labels, 5, rng=rng, directions=50)
        kill_once(flag)
        rng = np.random.default_rng()
        rng.bit_generator.state = start
        return attacks.boundary(model, images, labels, 20, rng=rng, directions=50)


killing_attack.version = 1
