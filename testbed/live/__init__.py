"""What goes on while a workload runs, for those who look: counts of planes and flows, states of EVs, faults in force.

Nothing here is on the way of a packet. What is told is read from the shared memory that the workload's own processes
write, and only when somebody asks.
"""
