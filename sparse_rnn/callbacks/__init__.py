"""Lightning callbacks: hook wiring, state and agreement of ranks; no mathematics."""
