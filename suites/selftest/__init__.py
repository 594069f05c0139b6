"""How often the harness itself is right: known faults, false alarms, power, and the table of rounding floors."""
