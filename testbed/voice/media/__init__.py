"""Audio as both ends of a call handle it: RTP, RTCP, Opus, and what is played when."""
