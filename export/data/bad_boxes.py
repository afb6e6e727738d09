"""Judges boxes that cannot be true or are written twice: a few are left out with a note, and many are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from saccade.export.data.findings import Findings

WrongForm = Literal["fractions", "corners", "corners in fractions"]
_FORM_SHARE = 0.9  # share of the boxes that must fit a wrong form before it is named
_FORM_OUTSIDE = 0.2  # share of them that then reach out of their picture, as those of a right form do not
_REMEDIES: Mapping[WrongForm, str] = {
    "fractions": (
        "this looks like fractions of the picture: a bbox is in pixels, so multiply by the picture's width and height"
    ),
    "corners": (
        "this looks like corners (x1 y1 x2 y2): a bbox is x, y, width and height, so write x1, y1, x2 - x1, y2 - y1"
    ),
    "corners in fractions": (
        "this looks like corners (x1 y1 x2 y2): write the centre and the size, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, "
        "y2 - y1"
    ),
}


def wrong_form(fitting: Mapping[WrongForm, int], boxes: int) -> WrongForm | None:
    """Returns the form that nearly all boxes fit, judged by how many fit each."""
    return next((form for form in _REMEDIES if fitting.get(form, 0) >= max(1.0, _FORM_SHARE * boxes)), None)


def judge_bad_boxes(
    where: str,
    bad: int,
    boxes: int,
    first: str,
    max_share: float,
    findings: Findings,
    form: WrongForm | None = None,
) -> None:
    """Adds a note or a complaint to `findings`; `first` says where the first bad box is and what is wrong with it."""
    if not bad:
        return
    share = bad / boxes
    text = (
        f"{where}: {bad:,} of {boxes:,} boxes are null, smaller than a pixel or outside of their picture, first {first}"
    )
    if share <= max_share:
        findings.note(f"bad boxes {where}", f"{text}: they are left out")
    elif form is not None:
        findings.complain(f"bad boxes {where}", f"{text}: {_REMEDIES[form]}")
    else:
        remedy = f"`limits: {{max_bad_boxes: {_above(share)}}}` in `data` lets them be left out"
        findings.complain(f"bad boxes {where}", f"{text}: correct or remove them; {remedy}")


def judge_reaching_boxes(
    where: str, reaching: int, bad: int, boxes: int, first: str, form: WrongForm | None, findings: Findings
) -> int:
    """Returns how many of the boxes that reach out of their picture are bad: all, if nearly all have a wrong form.

    Otherwise they are noted, because some data sets draw boxes around what the border hides.
    """
    if form is not None and bad + reaching >= _FORM_OUTSIDE * boxes:
        return reaching
    if reaching:
        text = f"{where}: {reaching:,} of {boxes:,} boxes reach out of their picture, first {first}"
        findings.note(f"reaching boxes {where}", f"{text}: they are cut off at its border")
    return 0


def judge_repeated_boxes(
    where: str, repeated: int, boxes: int, first: str, max_share: float, findings: Findings
) -> None:
    """Adds a note or a complaint about objects that are written twice, of which a network could find only one."""
    if not repeated:
        return
    text = f"{where}: {repeated:,} of {boxes:,} objects are written more than once, first {first}"
    if repeated / boxes <= max_share:
        findings.note(f"repeated boxes {where}", f"{text}: each counts once")
    else:
        remedy = f"`limits: {{max_bad_boxes: {_above(repeated / boxes)}}}` in `data` lets each count once"
        findings.complain(f"repeated boxes {where}", f"{text}: remove the copies; {remedy}")


def _above(share: float) -> str:
    return f"{math.ceil(share * 1000) / 1000:g}"
