"""The built-in synthetic world: drone flights over generated country, with exact ground truth.

from edgekit_experts.world import Flight

for frame in Flight(seed=7, size=(544, 960), frames=120):
    frame.rgb, frame.labels, frame.depth
"""

from edgekit_experts.world.flight import Flight, FlightFrame

# Counts the changes after which a seed no longer gives the same bytes.
VERSION = 3

__all__ = ["VERSION", "Flight", "FlightFrame"]
