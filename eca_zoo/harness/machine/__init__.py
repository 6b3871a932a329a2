"""What a run goes on: processes, devices, memory, environment."""
