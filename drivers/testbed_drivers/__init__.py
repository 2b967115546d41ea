"""Device drivers behind the protocols of :mod:`testbed.fabric.protocols`; only the rig side imports them."""
