"""The only room that speaks to databases: series of measurements, and records of who owes what."""
