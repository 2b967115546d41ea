"""The transceiver: standard WebRTC behind relays, audio and events to a backend."""
