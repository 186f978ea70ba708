"""How did a run go, as charts? Values first (`chart`), then two ways to draw them."""
