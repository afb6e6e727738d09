"""The reference data: digits and scenes of digits, drawn from a seed."""
