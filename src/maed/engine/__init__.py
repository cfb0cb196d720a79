"""Training: a plain loop for one device, and Lightning for several devices and for Perceivers."""
