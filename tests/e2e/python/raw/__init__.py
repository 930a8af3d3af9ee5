"""What no SDK at hand sends: packets on a bare TLS socket."""
