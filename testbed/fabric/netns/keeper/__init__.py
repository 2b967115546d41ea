"""The process that is a fabric: it holds every namespace, and when it ends the kernel removes them all.

Standard library only, so that it starts in some 30 ms and stays single-threaded, which entering a user
namespace requires. It knows nothing of labs: it makes namespaces, passes netlink messages into them, runs
processes in them and keeps what restores whatever a client changes.
"""
