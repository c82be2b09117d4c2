"""Replay: what has been recorded goes through the line of a configuration again, as fast as it can, with its own times.

    recording   a file, or what a gateway stored, as rows in order of time
    run         rows -> Line.step -> what came of it
    outcome     alarms and OEE of a run, the differences between two
    tell        both as JSON and for people

Owns no stage of the line: it is built by `edge.assembly`, as in the running gateway.
"""
