"""What nodes share in Redis: who they are, what they probably own, their messages, and presence."""

from .cluster import RedisCluster
from .presence import RedisPresence

__all__ = ["RedisCluster", "RedisPresence"]
