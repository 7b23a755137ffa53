"""What is made of the other parts: a module per command, each with ``run(argv)``.

Light to import; the work imports what it needs.
"""
