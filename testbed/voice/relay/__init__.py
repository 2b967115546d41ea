"""The relay: one UDP port towards clients, one towards transceivers, and between them no more than has to be."""
