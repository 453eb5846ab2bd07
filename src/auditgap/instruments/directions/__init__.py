"""What instruments that edit a direction share: how it is tried, chosen, and told from chance."""
