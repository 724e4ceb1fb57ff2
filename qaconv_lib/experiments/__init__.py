"""The experiments of the paper: runs, records, tables and claims."""
