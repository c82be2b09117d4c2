"""`andon browse` against real OPC UA servers."""

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import pytest_asyncio
from asyncua import ua
from commands_peers import andon
from opcua_peers import Plc, Users, certificate, free_port

from edge.commands.address_space import AddressSpace, Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE_OPCUA = Path(__file__).parents[1] / "peers" / "node_opcua"
CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"


def euinformation(code, shown):
    return ua.EUInformation(CEFACT, int.from_bytes(code.encode(), "big"), ua.LocalizedText(shown))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plc():
    """Line1/Press with an analog value, texts, an array, a structure, an enumeration, and a cycle back to Line1."""
    async with Plc() as plc:
        objects, index = plc.server.nodes.objects, plc.index
        line = await objects.add_object(ua.NodeId("Line1", index), f"{index}:Line1")
        press = await line.add_object(ua.NodeId("Press", index), f"{index}:Press")
        await press.add_reference(line, ua.ObjectIds.Organizes)
        hot = await press.add_variable(ua.NodeId("Press.Öl Temp", index), f"{index}:Öl Temp", 41.5)
        await hot.add_property(index, "EngineeringUnits", euinformation("CEL", "°C"))
        await hot.add_property(index, "InstrumentRange", ua.Range(-20.0, 150.0))
        await hot.set_writable()
        text = ua.Variant(ua.LocalizedText("Oil\nbehind the pump"), ua.VariantType.LocalizedText)
        await hot.write_attribute(ua.AttributeIds.Description, ua.DataValue(text))
        await press.add_variable(ua.NodeId("Press.Order", index), f"{index}:Order", "WO-1")
        await press.add_variable(ua.NodeId(7, index), f"{index}:Strokes", 0, ua.VariantType.UInt32)
        await press.add_variable(ua.NodeId("Press.Curve", index), f"{index}:Curve", [1.0, 2.5])
        await press.add_variable(
            ua.NodeId("Press.Range", index),
            f"{index}:Range",
            ua.Range(0.0, 1.0),
            datatype=ua.NodeId(ua.ObjectIds.Range),
        )
        await press.add_variable(
            ua.NodeId("Press.Mode", index), f"{index}:Mode", 2, ua.VariantType.Int32,
            datatype=ua.NodeId(ua.ObjectIds.ServerState),
        )  # fmt: skip
        await press.add_variable(ua.NodeId("Press.Order2", index), f"{index}:Order", "WO-2")
        yield plc


async def test_the_tree_shows_type_value_unit_access_and_node(plc):
    result = await andon("browse", plc.url)
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines()}
    assert lines["Öl"][2:] == ["Double", "41.5", "Cel", "rw", "nsu=urn:test:plc;s=Press.Öl", "Temp"]
    assert lines["Strokes"] == ["Strokes", "UInt32", "0", "r", "nsu=urn:test:plc;i=7"]
    assert lines["Mode"][:3] == ["Mode", "ServerState", "2"]
    assert lines["Curve"][1:4] == ["Double[]", "[2]", "1,"]
    assert "Server" not in lines
    assert "7 variables and 2 objects" in result.stderr
    assert "5 can be tags (not: 1 array, 1 structure)" in result.stderr


async def test_what_a_server_has_of_itself_is_shown_on_request(plc):
    result = await andon("browse", plc.url, "--standard", "--filter", "CurrentTime")
    assert "CurrentTime" in result.stdout
    assert "UtcTime" in result.stdout


@pytest.mark.parametrize("place", ["Line1/Press", "line1/PRESS", "nsu=urn:test:plc;s=Press", "ns=2;s=Press"])
async def test_a_part_of_the_tree_is_found_by_path_or_node(plc, place):
    result = await andon("browse", plc.url, "--path", place, "--json", "--filter", "order*")
    assert result.exit_code == 1
    result = await andon("browse", plc.url, "--path", place, "--json", "--filter", "*order*")
    found = json.loads(result.stdout)
    assert [node["value"] for node in found["nodes"]] == ["WO-1", "WO-2"]
    assert [node["node"] for node in found["nodes"]] == [
        "nsu=urn:test:plc;s=Press.Order",
        "nsu=urn:test:plc;s=Press.Order2",
    ]


async def test_csv_rows_carry_type_unit_range_and_description(plc):
    result = await andon("browse", plc.url, "--csv", "-", "--device", "press")
    rows = {row["tag"]: row for row in csv.DictReader(io.StringIO(result.stdout))}
    assert list(rows) == [f"press.Line1.Press.{name}" for name in ("Oel_Temp", "Order", "Strokes", "Mode", "Order_2")]
    hot = rows["press.Line1.Press.Oel_Temp"]
    assert hot["address"] == "nsu=urn:test:plc;s=Press.Öl Temp"
    assert (hot["type"], hot["unit"], hot["minimum"], hot["maximum"]) == ("", "Cel", "-20", "150")
    assert hot["description"] == "Oil behind the pump"
    assert rows["press.Line1.Press.Order"]["type"] == "string"


async def test_depth_and_filter_keep_the_way_to_what_they_find(plc):
    result = await andon("browse", plc.url, "--json", "--depth", 2)
    assert [node["path"] for node in json.loads(result.stdout)["nodes"]] == [["Line1"], ["Line1", "Press"]]
    result = await andon("browse", plc.url, "--json", "--filter", "strokes")
    assert [node["path"][-1] for node in json.loads(result.stdout)["nodes"]] == ["Line1", "Press", "Strokes"]


async def test_a_place_that_is_not_there_is_answered_with_what_is(plc):
    result = await andon("browse", plc.url, "--path", "Line1/Pres")
    assert result.exit_code == 1
    assert "no 'Pres' below Line1; there is Press" in result.stderr
    result = await andon("browse", plc.url, "--path", "nsu=urn:other;i=1")
    assert "urn:other is not on the server" in result.stderr


async def test_a_small_server_is_asked_in_small_steps(plc, monkeypatch):
    """No more than two nodes per request, and one reference per answer: everything else comes by BrowseNext."""
    whole = json.loads((await andon("browse", plc.url, "--json")).stdout)["nodes"]
    monkeypatch.setattr("edge.commands.address_space.NODES_PER_BROWSE", 2)
    monkeypatch.setattr("edge.commands.address_space.NODES_PER_READ", 2)
    monkeypatch.setattr("edge.commands.address_space.REFERENCES_PER_NODE", 1)
    assert json.loads((await andon("browse", plc.url, "--json")).stdout)["nodes"] == whole


async def test_refusals_say_what_to_do(plc, tmp_path):
    port = free_port()
    result = await andon("browse", f"opc.tcp://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert f"opc.tcp://127.0.0.1:{port} cannot be reached" in result.stderr
    assert "most servers listen on 4840" in result.stderr
    result = await andon("browse", plc.url, "--policy", "Basic256Sha256", "--pki", tmp_path)
    assert result.exit_code == 1
    assert "it offers None, None" in result.stderr
    result = await andon("browse", "press", "--config", tmp_path)
    assert result.exit_code == 2
    assert "gateway.toml" in result.stderr
    result = await andon("browse", "http://somewhere")
    assert result.exit_code == 2
    assert "opc.tcp://host:port" in result.stderr


async def test_an_unknown_server_is_trusted_by_its_thumbprint_and_a_login_is_used(tmp_path):
    policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    async with Plc(policies=policies, identity=certificate(), users=Users()) as plc:
        await plc.add("speed", 1.5)
        secured = ["browse", plc.url, "--policy", "Basic256Sha256", "--pki", tmp_path / "pki", "--user", "andon"]
        secured += ["--password-file", password]
        refused = await andon(*secured)
        assert refused.exit_code == 1
        assert "not trusted" in refused.stderr
        assert "andon cert trust" in refused.stderr
        listed = json.loads((await andon("cert", "list", "--pki", tmp_path / "pki", "--json")).stdout)
        (rejected,) = [one for one in listed if one["room"] == "rejected"]
        trusted = await andon("cert", "trust", rejected["thumbprint"][:12].upper(), "--pki", tmp_path / "pki")
        assert trusted.exit_code == 0, trusted.stderr
        result = await andon(*secured)
        assert result.exit_code == 0, result.stderr
        assert "1.5" in result.stdout
        password.write_text("wrong")
        result = await andon(*secured)
        assert result.exit_code == 1
        assert "refuses user 'andon'" in result.stderr


async def test_a_configured_device_is_entered_as_configured(plc, tmp_path):
    (tmp_path / "gateway.toml").write_text(f'[[device]]\nname = "press"\ntype = "opcua"\nurl = "{plc.url}"\n')
    result = await andon("browse", "press", "--config", tmp_path, "--filter", "strokes", "--csv", "-")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["tag"], row["device"]) == ("press.Line1.Press.Strokes", "press")
    result = await andon("browse", "pres", "--config", tmp_path)
    assert result.exit_code == 2
    assert "devices there: press" in result.stderr


NAMES = {f"n{i}": float(i) for i in range(5000)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node_opcua(tmp_path_factory):
    """Five thousand variables on a server that takes 50 nodes per browse and 500 per read."""
    if not (NODE_OPCUA / "node_modules").is_dir() or not shutil.which("node"):
        if os.environ.get("CI"):
            pytest.fail(f"install Node 20 and run: npm ci --prefix {NODE_OPCUA}")
        pytest.skip("node-opcua is not installed")
    from test_opcua_node_opcua import NodePlc

    limits = {"maxNodesPerBrowse": 50, "maxNodesPerRead": 500}
    async with NodePlc(tmp_path_factory.mktemp("browsed"), NAMES, limits=limits) as plc:
        yield plc


async def test_five_thousand_nodes_of_another_maker_take_seconds(node_opcua):
    begun = time.monotonic()
    result = await andon("browse", node_opcua.url, "--json")
    print(f"\n5,000 nodes of node-opcua: {time.monotonic() - begun:.1f} s")
    found = [node for node in json.loads(result.stdout)["nodes"] if node["path"][-1] in NAMES]
    assert {node["path"][-1]: node["value"] for node in found} == NAMES


async def test_limits_that_a_server_does_not_state_are_found_out(node_opcua, monkeypatch):
    """It refuses what is too much (BadTooManyOperations); then less is asked for."""
    silent = ua.ObjectIds.Server_ServerStatus_SecondsTillShutdown
    monkeypatch.setattr("edge.commands.address_space._LIMITS", (silent, silent))
    found = json.loads((await andon("browse", node_opcua.url, "--json")).stdout)["nodes"]
    assert {node["path"][-1]: node.get("value") for node in found if node["path"][-1] in NAMES} == NAMES


async def test_answers_in_pieces_are_put_together(node_opcua, monkeypatch):
    part = ["browse", node_opcua.url, "--standard", "--path", "Server", "--depth", 3, "--json"]
    whole = [node["path"] for node in json.loads((await andon(*part)).stdout)["nodes"]]
    monkeypatch.setattr("edge.commands.address_space.REFERENCES_PER_NODE", 2)
    assert [node["path"] for node in json.loads((await andon(*part)).stdout)["nodes"]] == whole


class OneAtATime:
    """A session with a server that keeps one unfinished answer: of several nodes it browses only the first."""

    where = "plc"
    options = None

    async def call(self, request, response):
        if isinstance(request, ua.BrowseNextRequest):
            (point,) = request.Parameters.ContinuationPoints
            answer = ua.BrowseNextResponse()
            answer.Parameters.Results = [self.page(*map(int, point.split(b"/")))]
            return answer
        answer = ua.BrowseResponse()
        first, *others = request.Parameters.NodesToBrowse
        answer.Results = [self.page(first.NodeId.Identifier, 0)]
        answer.Results += [ua.BrowseResult(StatusCode=ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints))] * len(
            others
        )
        return answer

    def page(self, node, at):
        """Nodes 1 to 3 below the root 0, each with three children, two references per answer."""
        below = {0: [1, 2, 3], 1: [11, 12, 13], 2: [21, 22, 23], 3: [31, 32, 33]}.get(node, [])
        result = ua.BrowseResult()
        for child in below[at : at + 2]:
            name = ua.QualifiedName(str(child), 2)
            id_ = ua.ExpandedNodeId(child, 2)
            result.References.append(
                ua.ReferenceDescription(NodeId=id_, BrowseName=name, NodeClass=ua.NodeClass.Object)
            )
        result.ContinuationPoint = f"{node}/{at + 2}".encode() if below[at + 2 :] else None
        return result


async def test_a_server_with_one_place_for_unfinished_answers_is_browsed_node_by_node():
    space = AddressSpace(OneAtATime(), ["", "", "urn:plc"], 100, 100, lambda *_: None)
    root = Node(ua.NodeId(0, 2), "", ("root",), "root", is_variable=False)
    await space.tree(root, 9, standard=True)
    assert [node.path[-1] for node in root.walk()][1:] == [
        "1",
        "11",
        "12",
        "13",
        "2",
        "21",
        "22",
        "23",
        "3",
        "31",
        "32",
        "33",
    ]
    assert not [node for node in root.walk() if node.problem]
