"""Detecting adversarial examples in batches: two papers re-run, checked, and turned into a calibrated test.

Data flows one way, and so do imports:
datasets → models → attacks → (uLSIF | reference manifold) → protocol → record → figure.
"""

__version__ = "0.1.0"
