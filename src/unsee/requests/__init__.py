"""A ledger of deletion requests over one deployed model, answered one after another."""
