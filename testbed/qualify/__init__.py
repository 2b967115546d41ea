"""The qualification of a fabric: its experiments, what they came to, and the table beside the paper's figures."""
