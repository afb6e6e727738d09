"""Pictures without any object: many of them mean that annotations were lost."""

from __future__ import annotations

import pytest

from saccade.export.data.data_limits import DataLimits
from saccade.export.data.data_report import SplitFacts, empty_complaints
from saccade.models.contract.specs import Task


def split(empty: int, shown: int) -> SplitFacts:
    return SplitFacts(
        name="test",
        source="images/test",
        images=100,
        used=100,
        repeated=0,
        sizes=("64x64",),
        size_count=1,
        objects=(shown,),
        images_with=(shown,),
        images_without=empty,
    )


def test_split_whose_annotations_were_mostly_lost_is_refused_with_what_to_write() -> None:
    (text,) = empty_complaints(Task.DETECT, split(90, 10), DataLimits())

    assert "90 pictures (90.0%) of split 'test'" in text
    assert "max_empty: 0.901" in text
    assert empty_complaints(Task.DETECT, split(90, 10), DataLimits(max_empty=0.901)) == []


@pytest.mark.parametrize(
    ("task", "empty"), [(Task.DETECT, 50), (Task.INSTANCES, 0), (Task.CLASSIFY, 90), (Task.SEGMENT, 90)]
)
def test_some_pictures_may_show_nothing(task: Task, empty: int) -> None:
    assert empty_complaints(task, split(empty, 100 - empty), DataLimits()) == []


def test_split_without_any_object_is_refused_in_other_words() -> None:
    assert empty_complaints(Task.DETECT, split(100, 0), DataLimits()) == []
