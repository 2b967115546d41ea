"""What is sent when: each program posts messages and checks those that arrive."""
