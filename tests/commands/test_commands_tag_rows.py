"""Names and units of the tag list, made of what servers call them."""

from asyncua import ua

from edge.commands import browse as module
from edge.commands.tag_rows import NAME_LENGTH_MAX, tag_name, unit_of
from edge.config.load import _TAG_NAME
from edge.sources.opcua_options import OpcuaOptions

CEFACT = "http://www.opcfoundation.org/UA/units/un/cefact"


def euinformation(code, shown):
    return ua.EUInformation(CEFACT, int.from_bytes(code.encode(), "big"), ua.LocalizedText(shown))


def test_names_are_what_the_tag_list_takes():
    assert tag_name(("Förderer 1", "Antrieb", "Drehzahl [1/min]"), "band") == "band.Foerderer_1.Antrieb.Drehzahl_1_min"
    assert tag_name(("Press", "Speed"), "press") == "Press.Speed"
    assert tag_name(("温度",), "") == "_"
    for path in (("x" * 300,), ("a" * 100, "b" * 100), ("..", "-x"), ("#",), ("9:x",)):
        for device in ("", "plc"):
            name = tag_name(path, device)
            assert _TAG_NAME.match(name), name
            assert len(name) <= NAME_LENGTH_MAX


def test_units_are_spelled_alike_whoever_states_them():
    assert unit_of(euinformation("C16", "mm/s")) == "mm/s"
    assert unit_of(euinformation("KWH", "kW·h")) == "kW.h"
    assert unit_of(ua.EUInformation("urn:own", 1, ua.LocalizedText("°C"))) == "Cel"
    assert unit_of(ua.EUInformation(None, -1, ua.LocalizedText("parts"))) == "parts"
    assert unit_of(None) == ""


def test_the_policies_are_those_of_the_configuration():
    assert list(module.POLICIES) == list(OpcuaOptions.model_fields["security_policy"].annotation.__args__)
