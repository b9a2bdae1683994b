"""What holds for every request of the control plane, one concern per file. `application.py` has their order."""
