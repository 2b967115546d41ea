"""WebRTC voice: the relay, and what it shares with transceivers: the ufrag, the framing, the keys."""
