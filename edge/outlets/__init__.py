"""Ways out of the gateway: MQTT alarms, events, live values, status and commands.

`options` what may be set, `topics` where messages go, `payloads` what they say (JSON Schemas in `schema/`),
`link` one connection to the broker, `alarms` the durable way (retained states and the event stream), `live` the
lossy way (newest value wins), `commands` the way in, `mqtt` the outlet that puts them together.
"""
