"""Read-only SQL over the views of the contract: DataFrames and files. No torch."""
