"""The window on everything: JSON under /api/v1, live events, pages. Reads storage, moves tickets, runs no rule."""
