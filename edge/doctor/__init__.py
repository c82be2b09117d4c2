"""The doctor: one finding per device, broker, store, clock, certificate and configuration, in sentences.

    finding      what a finding is
    running      what the running gateway says of itself -> findings
    connections  the devices and the broker, tried from here, for a gateway that does not run
    machine      clock, disk, journal and certificates of this computer

Rules: nothing is changed and nothing is written; what is tried ends in bounded time; each finding stands for itself.
"""
