"""From the broker to durable: receive, decode, hand to the sinks, acknowledge."""
