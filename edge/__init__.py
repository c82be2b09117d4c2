"""The gateway: one process, one direction. PLC -> Batch -> line -> ring, journal, outlets."""

import os

# onnxruntime writes a telemetry database on import and later resolves its vendor's host, unless this stands in the
# environment before the import. It belongs to the first line that any part of the gateway runs.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
