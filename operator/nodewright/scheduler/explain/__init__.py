"""Why a Pod goes where it goes: the scheduler's own plugins, asked about every node instead of for the best one.

`answer` is what comes out, `cluster` the picture that questions are asked about, `verdicts` what the plugins say of
each node, `obstacles` what is missing where, `evictions` what preemption would do, `gangs` how a gang stands.
"""

from ..plugin import PluginError
from .answer import Explanation, NodeVerdict, Score
from .cluster import Cluster
from .verdicts import explain

__all__ = ["Cluster", "Explanation", "NodeVerdict", "PluginError", "Score", "explain"]
