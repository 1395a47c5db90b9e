"""Commands that measure what the project promises; each prints a table and writes JSON under docs/benchmarks."""
