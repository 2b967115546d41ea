"""Voice over a fabric: clients, relays, a transceiver, its backend and the relays' store on hosts, and their calls."""
