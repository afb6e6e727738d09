"""Published versions in the forms of other servers: triton_repository.py writes Triton's. Imports no runtime."""
