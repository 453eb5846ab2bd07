"""What an alarm opens, and what closes it: a regression case that fails on the bad release and passes on the fix."""
