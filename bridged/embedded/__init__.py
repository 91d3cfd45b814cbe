"""A small ComfyUI-compatible worker: real image nodes on Pillow and numpy, for a first run, demos and tests.

It speaks ComfyUI 0.3.64's API for the node classes in `definitions.py`; its answers, events and pictures are
held against recordings of that version. It imports nothing else of this package, and this package talks to it
only over HTTP.
"""
