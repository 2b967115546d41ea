"""A lab made real: the protocols every fabric offers, and the realisations behind them."""
