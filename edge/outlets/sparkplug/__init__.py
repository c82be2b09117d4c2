"""The gateway as a Sparkplug B 3.0 edge node (ISO/IEC 20237:2023): a second way out over MQTT.

`options` what may be set, `plan` which assets are devices and what their metrics are called, `payload` how metrics
become bytes one by one, `columns` how readings become bytes all at once, `alarms` alarms as metrics, `session` the
rules of the protocol (pure), `values` what is known and what was told, `backlog` what is owed after an outage,
`speaker` what leaves and when, `node` the outlet that puts them together.
"""
