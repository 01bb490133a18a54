"""What answers say of the deployment that they come from."""

from __future__ import annotations

from gateway_middleware.edge.answer_headers import DeploymentHeaders


def test_headers_of_a_deployment_are_made_once_and_none_are_kept_for_ever() -> None:
    deployments = DeploymentHeaders()
    for _ in range(2):
        for number in range(1030):
            expected = [(b"x-gateway-provider", b"p"), (b"x-gateway-deployment", b"p/m-%d\\n" % number)]
            assert deployments.of("p", f"p/m-{number}\n") == expected
    assert deployments.of("p", "p/m-1029\n") is deployments.of("p", "p/m-1029\n")
