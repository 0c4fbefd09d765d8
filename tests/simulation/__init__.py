"""The whole dispatcher in virtual time: several processes on one ledger, faults drawn from a seed, invariants after every step."""
