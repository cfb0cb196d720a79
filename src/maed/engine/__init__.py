"""What trainings share: a plain loop for one device, Lightning for several and for the Perceivers."""
