"""Aimed, or only changed? A test that knows the network, with changes without an aim as its null hypothesis."""

from advlib.detectors.aim.aim_test import AimTest, AimVerdict
from advlib.detectors.aim.bank import BETA, Bank, Ranked
from advlib.detectors.aim.changes import FAMILIES, SIZES

__all__ = ["BETA", "FAMILIES", "SIZES", "AimTest", "AimVerdict", "Bank", "Ranked"]
