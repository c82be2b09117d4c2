"""Where each value of the simulated plant stands: node ids and register addresses, as a PLC programmer's list.

The sample tag list names the same places; a test compares the two.
"""

from typing import Final

from edge.simulator.opcua_plc import Node
from edge.simulator.registers import Register

CNC_URI: Final = "urn:andon:sim:cnc"
INSPECTION_URI: Final = "urn:andon:sim:inspection"

CNC_NODES: Final = (
    Node("state_word", "Machine.State", "Int32", "0 off, 1 running, 2 idle, 3 setup, 4 down, 5 maintenance"),
    Node("reason_word", "Machine.Reason", "Int32", "Why the machine does not run, 0 = no reason given"),
    Node("workpiece_lost", "Machine.WorkpieceLost", "Boolean", "The workpiece came loose in the vise"),
    Node("parts", "Parts.Total", "UInt32", "Parts that left the machine, good and bad"),
    Node("rejects", "Parts.Rejected", "UInt32", "Parts that were not finished or failed the visual inspection"),
    Node("program", "Program.Name", "String", "Program in execution"),
    Node("process", "Program.Process", "String", "Stage of the machining"),
    Node("line", "Program.Line", "UInt32", "Line of the program in execution"),
    Node("order", "Order.Id", "String", "Work order"),
    Node("product", "Order.Product", "String", "Product of the order"),
    Node("feed_rate_set", "Setup.FeedRate", "Double", "Feed rate of the product, mm/s"),
    Node("clamp_pressure", "Setup.ClampPressure", "Double", "Pressure of the vise, bar"),
    Node("feed_rate", "Path.FeedRate", "Double", "Feed rate now, mm/s"),
    Node("x_position", "X.Position", "Double", "Position of the X axis, mm"),
    Node("x_velocity", "X.Velocity", "Double", "Velocity of the X axis, mm/s"),
    Node("x_current", "X.Current", "Double", "Current feedback of the X drive, A"),
    Node("x_output_current", "X.OutputCurrent", "Double", "Output current of the X drive, A"),
    Node("x_power", "X.Power", "Double", "Output power of the X drive, kW"),
    Node("y_position", "Y.Position", "Double", "Position of the Y axis, mm"),
    Node("y_velocity", "Y.Velocity", "Double", "Velocity of the Y axis, mm/s"),
    Node("y_current", "Y.Current", "Double", "Current feedback of the Y drive, A"),
    Node("y_output_current", "Y.OutputCurrent", "Double", "Output current of the Y drive, A"),
    Node("y_power", "Y.Power", "Double", "Output power of the Y drive, kW"),
    Node("z_position", "Z.Position", "Double", "Position of the Z axis, mm"),
    Node("z_velocity", "Z.Velocity", "Double", "Velocity of the Z axis, mm/s"),
    Node("spindle_velocity", "Spindle.Velocity", "Double", "Velocity of the spindle, mm/s as the source states"),
    Node("spindle_current", "Spindle.Current", "Double", "Current feedback of the spindle drive, A"),
    Node("spindle_output_current", "Spindle.OutputCurrent", "Double", "Output current of the spindle drive, A"),
    Node("spindle_power", "Spindle.Power", "Double", "Output power of the spindle drive, kW"),
)

INSPECTION_NODES: Final = (
    Node("trigger", "Station.Trigger", "UInt32", "Pictures taken; counts up when part and picture are ready"),
    Node("part_id", "Station.PartId", "String", "Strip in front of the camera"),
    Node("picture", "Station.Picture", "String", "File of the picture on this machine"),
    Node("verdict", "Station.Verdict", "String", "Result of the inspection; empty until somebody judges"),
)

PRESS_REGISTERS: Final = (
    Register("state_word", 1, "holding", 0, "uint16"),
    Register("reason_word", 1, "holding", 1, "uint16"),
    Register("motor_on", 1, "holding", 2, "bool", bit=0),
    Register("guard_closed", 1, "holding", 2, "bool", bit=1),
    Register("lubrication_ok", 1, "holding", 2, "bool", bit=2),
    Register("strokes", 1, "holding", 4, "uint32", order="CDAB"),
    Register("rejects", 1, "holding", 6, "uint32", order="CDAB"),
    Register("product", 1, "holding", 10, "string:16"),
    Register("order", 1, "holding", 20, "string:16"),
    Register("bearing_temperature", 1, "input", 0, "float32"),
    Register("vibration", 1, "input", 2, "uint16", scale=0.01),
    Register("pressure", 1, "input", 3, "int16", scale=0.1),
)

STRIP_PLC, STRIP_METER = 1, 2
"""Unit ids behind the strip line's Modbus server."""

STRIP_REGISTERS: Final = (
    Register("state_word", STRIP_PLC, "holding", 0, "uint16"),
    Register("reason_word", STRIP_PLC, "holding", 1, "uint16"),
    Register("strips", STRIP_PLC, "holding", 4, "uint32"),
    Register("rejects", STRIP_PLC, "holding", 6, "uint32"),
    Register("product", STRIP_PLC, "holding", 10, "string:16"),
    Register("order", STRIP_PLC, "holding", 20, "string:16"),
    Register("power", STRIP_METER, "input", 0, "float32"),
    Register("reactive_power_lagging", STRIP_METER, "input", 2, "float32"),
    Register("reactive_power_leading", STRIP_METER, "input", 4, "float32"),
    Register("power_factor_lagging", STRIP_METER, "input", 6, "uint16", scale=0.0001),
    Register("power_factor_leading", STRIP_METER, "input", 7, "uint16", scale=0.0001),
    Register("co2", STRIP_METER, "input", 8, "float32"),
    Register("load_type", STRIP_METER, "input", 10, "uint16"),
    Register("energy", STRIP_METER, "input", 12, "uint64", scale=0.001),
)
