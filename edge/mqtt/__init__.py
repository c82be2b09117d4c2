"""A client's end of MQTT, for whoever needs a broker: its options, and one connection in a thread of its own.

Shared by sources and outlets, which never import each other. Knows nothing of what the messages mean, and does not
connect again: when to try is its user's decision.
"""
