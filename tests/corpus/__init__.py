"""Uploads of known character, made in code: what must be refused (`hostile`) and what must pass (`benign`).

The corpus is a judge, not a mirror: it follows what a file is for whoever opens it later, and knows nothing of how the
service checks. Everything is made from fixed seeds; no file of it is kept in the repository. Hostile
cases are the same bytes every time; benign ones too, but for the few whose encoder writes the time or a serial number.
"""
