"""The simulated plant: real OPC UA and Modbus servers on loopback that replay real recordings."""
