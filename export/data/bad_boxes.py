"""Judges boxes that cannot be true: a few are left out with a note, and many make the data refused."""

from __future__ import annotations

import math

from saccade.export.data.findings import Findings


def judge_bad_boxes(where: str, bad: int, boxes: int, first: str, max_share: float, findings: Findings) -> None:
    """Adds a note or a complaint to `findings`; `first` says where the first bad box is and what is wrong with it."""
    if not bad:
        return
    share = bad / boxes
    text = f"{where}: {bad:,} of {boxes:,} boxes are null, without area or beside their picture, first {first}"
    if share > max_share:
        remedy = f"`limits: {{max_bad_boxes: {math.ceil(share * 1000) / 1000:g}}}` in `data` lets them be left out"
        findings.complain(f"bad boxes {where}", f"{text}: correct or remove them; {remedy}")
    else:
        findings.note(f"bad boxes {where}", f"{text}: they are left out")
