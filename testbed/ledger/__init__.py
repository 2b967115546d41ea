"""Where every packet of a run ended: sent = delivered + dropped at named places + in flight, or a remainder."""
