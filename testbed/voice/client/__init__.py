"""A client that calls, plays a signal it knows, and looks for it in what comes back."""
