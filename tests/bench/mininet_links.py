"""The nodes and links of a lab made by Mininet: no controller, no switch daemon, no address. Prints JSON.

Run by the interpreter that has Mininet (the distribution's, usually), within network, mount and PID namespaces of its
own. It reads a graph from standard input, ``{"nodes": [...], "links": [[a, b], ...]}``, for that interpreter need not
have what labs are read with. Standard library and Mininet only.
"""

import json
import sys
import time

from mininet.link import Link
from mininet.node import Node


def main() -> None:
    graph = json.load(sys.stdin)
    began = time.perf_counter()
    nodes = {name: Node(name) for name in graph["nodes"]}
    made = time.perf_counter()
    for a, b in graph["links"]:
        Link(nodes[a], nodes[b])
    up_s = time.perf_counter() - began
    ports = sum(len(node.intfs) for node in nodes.values())
    if ports != 2 * len(graph["links"]):
        sys.exit(f"Mininet made {ports} ports for {len(graph['links'])} links")
    print(json.dumps({"up_s": up_s, "steps_s": {"nodes": made - began, "links": up_s - (made - began)}}))


if __name__ == "__main__":
    main()
