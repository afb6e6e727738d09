"""What the head of a predict request says of it: its id, and the parameters of its query."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import MutableMapping
from functools import lru_cache
from urllib.parse import parse_qsl

from saccade.service.errors import BadParameter
from saccade.service.vision.parameters import NOTHING_GIVEN, GivenParameters, parse_given

_KEPT_QUERIES = 64  # most clients ask for the same thing each time
_PROCESS_ID = secrets.token_hex(5)  # random once; asking the kernel for every request shows in a profile
_REQUEST_NUMBERS = itertools.count(1)
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
Headers = MutableMapping[bytes, bytes]


def request_id_of(headers: Headers) -> str:
    """The client's own id when it is short and printable, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return f"{_PROCESS_ID}{next(_REQUEST_NUMBERS):010x}"


@lru_cache(_KEPT_QUERIES)
def query_parameters(query: bytes) -> GivenParameters:
    """Raises BadParameter."""
    if not query:
        return NOTHING_GIVEN
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    values = dict(pairs)
    if len(values) != len(pairs):
        raise BadParameter("a parameter appears twice in the query")
    return parse_given(values, is_text=True)
