"""How many workers pay: real studies on this machine's cores, simulated ones beyond; see docs/scaling.md."""
