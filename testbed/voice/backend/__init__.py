"""Backends: what a transceiver hands audio and events to, over WebSocket."""
