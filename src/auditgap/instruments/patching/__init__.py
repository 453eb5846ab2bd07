"""What instruments that patch share: pairs of runs, the metric, and the place where an effect sits."""
