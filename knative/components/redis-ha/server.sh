#!/bin/sh
# Starts the Redis of a pod: as the primary, or as a replica of it, as the Sentinels say. There is one of them in each pod, so
# one will answer. Of several answers the one counts that has the highest epoch: each failover begins a new one.
set -eu
: "${PEERS:=redis-0.redis-nodes redis-1.redis-nodes redis-2.redis-nodes}" "${OWN:=$(hostname).redis-nodes}"
: "${BASE:=/redis}" "${CONFIG:=/tmp/replication.conf}"

ask() {
  for peer in $PEERS; do
    timeout 2 redis-cli -h "$peer" -p 26379 sentinel master jobs || true
  done | awk '
    last == "ip" { host = $0 }
    last == "config-epoch" && $0 + 0 >= highest { highest = $0 + 0; newest = host }
    { last = $0 }
    END { print newest }'
}

until primary=$(ask) && [ "$primary" ]; do
  echo "No Sentinel says which Redis is the primary; asking again"
  sleep 1
done
umask 077
{
  # By a name that it keeps, for its address changes with each pod.
  echo "replica-announce-ip $OWN"
  echo "masteruser replica"
  echo "masterauth $REPLICA_PASSWORD"
  # An old primary that comes back, and is one no longer, takes no writes: no replica follows it.
  echo "min-replicas-to-write 1"
  echo "min-replicas-max-lag 10"
  if [ "$primary" != "$OWN" ]; then
    echo "replicaof $primary 6379"
  fi
} >"$CONFIG"
exec sh "$BASE/start.sh" --include "$CONFIG" "$@"
