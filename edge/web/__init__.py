"""The local page, metrics, health and the control socket."""
