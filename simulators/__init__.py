"""Virtual lifts and charging piles that speak the wire contract over MQTT."""
