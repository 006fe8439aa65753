"""Moves a MySQL or MariaDB database into another one: schema, rows, code, grants; and compares two.

It stands on two ``Side``s, which are anything that gives the arguments of PyMySQL's ``connect``, and knows no provider.

The schema is what the server's own ``SHOW CREATE`` says, as with ``mysqldump``: no program is needed, and no password
leaves the process. Rows travel as the text of ``INSERT``, which the source itself writes: ``CONCAT`` and ``QUOTE``
there cost less than to take values apart here. ``LOAD DATA LOCAL`` would save the target less than a third of its work
before indexes; it is off where nobody turned it on, and lets a server ask for any file of the client.
"""
