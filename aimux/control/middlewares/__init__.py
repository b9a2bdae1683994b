"""What holds for every request of the control plane, one concern a file. `application.py` has their order."""
