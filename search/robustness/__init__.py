"""How a network's answers hold when its input or its stored weights are disturbed."""
