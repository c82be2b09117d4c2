"""Ways out of the gateway: MQTT alarms, live values, status."""
