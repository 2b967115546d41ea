"""Faults as scopes that stamp what they did, on the clock of the samples, and always heal."""
