"""ISA-18.2 / IEC 62682 alarms: limits find conditions, the table says what follows, the book remembers."""
