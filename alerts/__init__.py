"""Rules, the engine that runs them on device time, and telling people. Incidents become tickets in `storage`."""
