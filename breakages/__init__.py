"""The breakage drill: one line of the code is broken at a time, and a test has to turn red each time."""
