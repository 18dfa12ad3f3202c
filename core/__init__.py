"""The words of the product: what devices say, what faults mean, how tickets move. Pure: no I/O, no clock."""
