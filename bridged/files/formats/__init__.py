"""What files of each type look like inside: walks that read a container's structure and never trust a length in it."""
