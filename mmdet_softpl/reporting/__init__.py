"""Pictures and tables of what the labeller and the models did."""
