"""What a notebook's parameters may be: one vocabulary, in which the same name means the same thing everywhere."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

PROFILE_NAMES = ("quick", "paper")


class Kind(NamedTuple):
    """What values a parameter may take: in words, for one and for several, and as a test."""

    words: str
    plural: str
    allows: Callable[[Any], bool]


def whole(least: int) -> Kind:
    """Whole numbers from `least` on; True and False are none."""
    return Kind(
        f"a whole number ≥ {least}",
        f"whole numbers ≥ {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def whole_or_all(least: int) -> Kind:
    """Whole numbers from `least` on, and 0, which stands for all there are."""
    some = whole(least)
    return Kind(f"{some.words}, or 0 for all", "", lambda value: value == 0 or some.allows(value))


def number(span: str, lies: Callable[[float], bool]) -> Kind:
    """Numbers that lie in a span; True and False are none."""

    def allows(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and lies(value)

    return Kind(f"a number {span}", f"numbers {span}", allows)


def choice(*names: str) -> Kind:
    """One of a few words."""
    words = ", ".join(names)
    return Kind(f"one of {words}", words, lambda value: isinstance(value, str) and value in names)


def text(words: str, plural: str = "", part: str = "") -> Kind:
    """Any text, or one that holds `part`."""
    return Kind(words, plural, lambda value: isinstance(value, str) and part in value)


def listed(of: Kind, *, rising: bool = False, start: float | None = None, with_: Sequence[float] = ()) -> Kind:
    """Non-empty lists of one kind; rising, or beginning with `start` and going on, or holding all of `with_`."""
    words = f"a {'rising ' * rising}list of {of.plural}"
    if start is not None:
        words += f" that begins with {start:g}"
    if with_:
        words += f", with {' and '.join(f'{each:g}' for each in with_)}"

    def allows(value: Any) -> bool:
        if not isinstance(value, list) or not value or not all(map(of.allows, value)):
            return False
        if start is not None and (len(value) < 2 or value[0] != start):
            return False
        return set(with_) <= set(value) and (not rising or all(a < b for a, b in pairwise(value)))

    return Kind(words, "", allows)


_SHARE = number("in (0, 1]", lambda value: 0 < value <= 1)
_SHARE_OR_NONE = number("in [0, 1]", lambda value: 0 <= value <= 1)
_NAMES = {
    choice(*PROFILE_NAMES): "profile",
    choice("cifar10-cleverhans", "cifar10-resnet"): "colour_network",
    text("a path, or empty"): "image_file",
    whole(0): "seed slow_images walk_steps",
    whole(1): "dimension attack_steps search_repeats weights_tried repeats",
    whole(2): "draws batch_size cifar_draws attacked_images",
    whole(4): "fgsm_sizes",
    whole(10): "samples_1d",
    whole(20): "mixed_draws",
    whole(39): "refitted_batches",
    whole(40): "power_batches",
    whole(50): "embedded_images power_images control_images",
    whole(100): "peer_limit reference_images shift_references",
    whole(500): "power_references",
    whole(1000): "clean_batches",
    whole_or_all(2): "images queries jsma_images",
    whole_or_all(10): "boundary_images medical_images",
    whole_or_all(100): "boundary_references",
    _SHARE: "epsilon epsilon_step gamma",
    listed(_SHARE): "map_epsilons",
    listed(_SHARE, rising=True): "gammas",
    listed(_SHARE, with_=(1,)): "changed_shares",
    listed(_SHARE, with_=(0.05, 0.1)): "power_epsilons",
    listed(_SHARE_OR_NONE): "epsilons",
    listed(_SHARE_OR_NONE, rising=True, start=0): "mixed_shares",
    listed(number("above 0", lambda value: value > 0)): "tolerances attacked_tolerances",
    listed(whole(0), rising=True, start=0): "boundary_steps medical_steps",
    listed(whole(1)): "suspect_sizes cifar_sizes clean_sizes",
    listed(whole(1), rising=True): "tgsm_steps",
    listed(whole(1), with_=(1, 25)): "power_sizes",
    listed(whole(2)): "boundary_batch_sizes",
    listed(whole(2), rising=True): "mixed_sizes",
    listed(whole(10)): "sample_sizes",
    listed(whole(100)): "sizes",
    listed(whole(100), rising=True): "reference_counts",
    listed(choice("mnist", "cifar10", "organamnist", "bloodmnist")): "image_sets",
    listed(text("a name", "names")): "jsma_ways",
    listed(text("a test", "names of tests, such as density · pixels", part=" · ")): "calibrated_tests",
}
PARAMETERS = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def validate(parameters: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first parameter that is unknown or out of range."""
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise ValueError(f"unknown notebook parameter {name!r}; known are {', '.join(sorted(PARAMETERS))}")
        kind = PARAMETERS[name]
        if not kind.allows(value):
            raise ValueError(f"notebook parameter {name} must be {kind.words}, but is {value!r}")
