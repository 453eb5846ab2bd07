"""What instruments that read a label share: linear probes, their search and their controls."""
