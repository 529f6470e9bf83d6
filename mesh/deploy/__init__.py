"""What production is made of, and the checks of it that need no cluster."""
