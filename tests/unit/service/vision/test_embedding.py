"""Vectors of answers. Promises: exact in base64, the shortest digits in JSON, a vector of zeros has a name."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task
from saccade.service.client.answers import Embedding, Served, prediction_from
from saccade.service.client.errors import UnexpectedAnswer
from saccade.service.errors import BadParameter, NoDirection, NotFinite
from saccade.service.vision.answers import prediction_of
from saccade.service.vision.comparison import Answer, compared
from saccade.service.vision.embedding import embedding_json
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, complete, parse_given
from tests.support.versions import manifest_for

VECTOR = np.array([0.1, -0.7, np.sqrt(0.5)], np.float32)
PLACE = Geometry(6, 4, 0, 0, 32, 32)
RULE = DeadlineRule(1000.0, 2000.0)
MANIFEST = manifest_for("embedder", 1, Task.EMBED)
SERVED = Served("embedder", "1", "fp32", "id", {}, None)


def answered(vector: np.ndarray, **given: Any) -> dict[str, Any]:
    parameters = complete(GivenParameters(**given), MANIFEST, RULE)
    written = orjson.dumps(prediction_of([vector], PLACE, MANIFEST, parameters), option=orjson.OPT_SERIALIZE_NUMPY)
    document: dict[str, Any] = orjson.loads(written)
    return document


def test_numbers_are_written_with_as_many_digits_as_they_have() -> None:
    assert answered(VECTOR) == {
        "width": 6,
        "height": 4,
        "embedding": {"dim": 3, "dtype": "float32", "values": [0.1, -0.7, 0.70710677]},
    }


@pytest.mark.parametrize(("name", "code"), [("float32", "<f4"), ("float16", "<f2")])
def test_base64_holds_the_bytes_in_little_endian(name: str, code: str) -> None:
    found = answered(VECTOR, encoding="base64", embedding_dtype=name)["embedding"]

    assert (found["dim"], found["dtype"]) == (3, name)
    assert base64.b64decode(found["base64"]) == VECTOR.astype(code).tobytes()


def test_half_numbers_in_json_are_those_of_the_bytes() -> None:
    values = answered(VECTOR, embedding_dtype="float16")["embedding"]["values"]

    assert (np.array(values, np.float16) == VECTOR.astype(np.float16)).all()


def test_an_answer_outlives_the_slot_that_it_was_made_in() -> None:
    slot = VECTOR.copy()
    kept = embedding_json(slot, "json", "float32")["embedding"]["values"]
    slot[:] = 0

    assert (kept == VECTOR).all()


def test_zeros_are_a_named_error() -> None:
    with pytest.raises(NoDirection, match="all zeros"):
        answered(np.zeros(3, np.float32))


def test_what_is_no_number_keeps_its_own_name() -> None:
    with pytest.raises(NotFinite, match="embedding"):
        answered(np.array([np.nan, 0, 1], np.float32))


@pytest.mark.parametrize("given", [{"top_k": 3}, {"score_threshold": 0.5}, {"mask_format": "rle"}])
def test_parameters_of_other_tasks_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadParameter, match="does not apply to an embed model; its parameters are: encoding"):
        answered(VECTOR, **given)


def test_other_tasks_refuse_an_encoding_and_a_word_that_is_none() -> None:
    with pytest.raises(BadParameter, match="does not apply to a classify model"):
        complete(GivenParameters(encoding="base64"), manifest_for("classifier", 1), RULE)
    with pytest.raises(BadParameter, match="float64"):
        parse_given({"embedding_dtype": "float64"}, is_text=True)


@pytest.mark.parametrize("given", [{}, {"encoding": "base64"}, {"encoding": "base64", "embedding_dtype": "float16"}])
def test_the_client_reads_what_the_server_wrote(given: dict[str, Any]) -> None:
    found = prediction_from(answered(VECTOR, **given), SERVED)

    assert isinstance(found, Embedding)
    assert found.vector.dtype == np.dtype(given.get("embedding_dtype", "float32"))
    assert (found.vector == VECTOR.astype(found.vector.dtype)).all()
    with pytest.raises(ValueError, match="no place"):
        found.draw(b"")


@pytest.mark.parametrize(
    "change", [{"dim": 4}, {"dtype": "int8"}, {"base64": "AAA"}, {"base64": "AAAA"}, {"base64": "AAAAAA=="}]
)
def test_a_damaged_vector_is_no_answer(change: dict[str, Any]) -> None:
    document = answered(VECTOR)
    document["embedding"] |= change

    with pytest.raises(UnexpectedAnswer):
        prediction_from(document, SERVED)


def test_versions_agree_by_the_cosine_of_their_vectors() -> None:
    east, north = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)
    between = (east + north) / np.float32(np.sqrt(2))

    def agreement(first: np.ndarray, second: np.ndarray) -> float:
        return compared(Answer([first], PLACE, MANIFEST), Answer([second], PLACE, MANIFEST)).agreement

    assert agreement(east, east) == 1.0
    assert agreement(east, between) == pytest.approx(0.5**0.5)
    assert agreement(east, -east) == 0.0
    assert agreement(east, np.ones(2, np.float32)) == 0.0
