"""The extensions of the protocol that the server lists, and the parameters that it ignores."""

from __future__ import annotations

import pytest
from serving import build_request


def test_the_listed_extensions_do_not_include_loading(server):
    assert server.send("GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
    assert server.send("POST", "/v2/repository/index")[0] == 200
    for verb in ("load", "unload"):
        assert server.send("POST", f"/v2/repository/models/mood/{verb}", {})[0] == 404


@pytest.mark.parametrize("name", ["classification", "priority"])
def test_unknown_parameters_are_ignored_wherever_they_are(server, rows, name):
    plain = build_request(rows["mood"][:2])
    [tensor] = plain["inputs"]
    outputs = [{"name": "label"}, {"name": "probabilities"}]
    extended = {
        "inputs": [{**tensor, "parameters": {name: 1}}],
        "outputs": [{**output, "parameters": {name: 1}} for output in outputs],
        "parameters": {name: 1},
    }
    expected = server.send("POST", "/v2/models/mood/infer", {**plain, "outputs": outputs})
    assert server.send("POST", "/v2/models/mood/infer", extended)[:2] == expected[:2]
    assert expected[0] == 200


def test_a_known_parameter_of_an_output_is_still_checked(server, rows):
    outputs = [{"name": "label", "parameters": {"binary_data": 1}}]
    status, body, _ = server.infer("mood", rows["mood"][:1], outputs=outputs)
    assert (status, body["error"]) == (400, "parameter binary_data is 1; expected true or false")
