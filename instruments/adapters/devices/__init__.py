"""What workers run in other Pythons, one file for each library; nothing here imports stempilot, and it imports none."""
