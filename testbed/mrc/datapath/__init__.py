"""The NIC on a real kernel: sockets, the packet ring, the loop, and what it shows to a watcher."""
