"""Studies of many runs: methods compared, parts ablated, metrics judged."""
