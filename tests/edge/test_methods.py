"""Which methods are let in at which endpoints."""

from __future__ import annotations

import pytest

from gateway_middleware.core.endpoints import locate
from gateway_middleware.core.errors import MethodNotAllowedError
from gateway_middleware.edge.admission import check_method


def test_a_path_that_is_none_is_no_matter_of_its_method() -> None:
    check_method("GET", None)
    check_method("POST", locate("/v1/chat/completions"))


@pytest.mark.parametrize(
    ("method", "path"), [("TRACE", "/nowhere"), ("GET", "/v1/chat/completions"), ("PUT", "/v1/usage")]
)
def test_a_method_that_is_none_of_an_endpoint_is_refused(method: str, path: str) -> None:
    with pytest.raises(MethodNotAllowedError):
        check_method(method, locate(path))
