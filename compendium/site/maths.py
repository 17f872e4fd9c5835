"""Formulas without a host and without JavaScript: LaTeX becomes MathML when a page is written.

`math-core` (MIT) converts, browsers draw. What they draw with is STIX Two Math (SIL Open Font License 1.1), which
`ziamath` (MIT) carries: a telephone has no font with the table that brackets, roots and sums need.
"""

import base64
import html
import io
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from fontTools import subset
from fontTools.ttLib import TTFont
from math_core import LatexError, LatexToMathML

FONT = "STIX Two Math"
_OVERLINE = "\u0332"  # what math-core stretches; browsers draw it in pieces, a border in one
_convert = LatexToMathML().convert_with_local_state

# What formulas of this compendium may hold: Latin, Greek, accents, arrows, operators, brackets, italic letters.
_CHARACTERS = (
    (0x20, 0x7E), (0xA0, 0xFF), (0x2C6, 0x2DC), (0x302, 0x332), (0x391, 0x3C9), (0x3D1, 0x3F5), (0x2010, 0x2064),
    (0x2102, 0x2135), (0x2190, 0x21D5), (0x2200, 0x22FF), (0x2308, 0x230B), (0x27E8, 0x27EB), (0x1D400, 0x1D467),
    (0x1D49C, 0x1D4CF), (0x1D538, 0x1D56B), (0x1D6E2, 0x1D71B),
)  # fmt: skip


def mathml(latex: str, *, display: bool = False) -> str:
    r"""Convert a formula.

    Parameters
    ----------
    latex : str
        Without its dollar signs.
    display : bool
        On a line of its own.

    Returns
    -------
    str
        A `math` element, its source in `alttext`.

    Raises
    ------
    ValueError
        For what is no formula, with the formula.

    Examples
    --------
    >>> mathml(r"\hat h")
    '<math alttext="\\hat h"><mover accent="true"><mi>h</mi><mo stretchy="false">ˆ</mo></mover></math>'
    """
    latex = latex.strip()
    try:
        text = _convert(latex, displaystyle=display)
    except LatexError as error:
        raise ValueError(f"the formula {latex!r} cannot be drawn: {error}") from None
    # XML knows five names of characters, MathML has more.
    named = re.sub(r"&(?!(?:lt|gt|amp|quot|apos|#\w+);)\w+;", lambda match: html.unescape(match[0]), text)
    root = ElementTree.fromstring(named)
    for element in list(root.iter("mover")):
        over = element[1]
        if over.text == _OVERLINE:
            element.tag, element.attrib = "mrow", {"class": "overline"}
            element.remove(over)
    root.set("alttext", latex)
    return ElementTree.tostring(root, encoding="unicode")


@cache
def font_face() -> str:
    """Return a CSS rule that holds the font, cut down to what formulas need (about 240 kB)."""
    package = Path(find_spec("ziamath").origin).parent  # not imported: only its font is wanted
    source = package / "fonts" / "STIXTwoMath-Regular.ttf"
    font = TTFont(io.BytesIO(source.read_bytes()))
    options = subset.Options(hinting=False, layout_features=["ssty", "dtls"], name_IDs=[0, 1, 2, 4, 7, 13, 14])
    cut = subset.Subsetter(options)
    cut.populate(unicodes=[code for first, last in _CHARACTERS for code in range(first, last + 1)])
    cut.subset(font)
    font.flavor = "woff"
    packed = io.BytesIO()
    font.save(packed)
    content = base64.b64encode(packed.getvalue()).decode("ascii")
    return (
        f"/* {FONT}: {font['name'].getDebugName(0)}. SIL Open Font License 1.1. */\n"
        f'@font-face {{ font-family: "{FONT}"; src: url(data:font/woff;base64,{content}) format("woff"); }}\n'
    )
