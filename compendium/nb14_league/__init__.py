"""14: the league of detectors, attacks and changes without an aim, at equal false alarms."""
