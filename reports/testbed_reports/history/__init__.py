"""Every run that was kept, in a database: what became of each test, and what was measured."""
