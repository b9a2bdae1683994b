"""The pages for browsers. They use the operations of the REST API, and nothing else."""
