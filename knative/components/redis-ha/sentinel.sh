#!/bin/sh
# Starts the Sentinel of a pod. It keeps what it has learned on the volume, in its configuration: which Redis is the primary,
# who the others are, and whom it voted for. At the very first start the primary is the Redis of the first pod.
#
# Anybody whom the network lets in may ask it where the primary is, and nothing else. The Sentinels themselves are the user
# `sentinel`, here as in Redis.
set -eu
: "${FIRST:=redis-0.redis-nodes}" "${OWN:=$(hostname).redis-nodes}" "${DATA:=/data}"
: "${SENTINEL_ACL_FILE:=/tmp/sentinel.acl}"

umask 077
password=$(printf %s "$SENTINEL_PASSWORD" | sha256sum | cut -c 1-64)
cat >"$SENTINEL_ACL_FILE" <<end
user default on nopass -@all +ping +sentinel|master +sentinel|masters
user sentinel on #$password &* -@all +ping +client|setname +publish +sentinel|is-master-down-by-addr
end

conf=$DATA/sentinel.conf
learned='^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) '
if ! grep -E "$learned" "$conf" >"$conf.new"; then
  echo "sentinel monitor jobs $FIRST 6379 2" >"$conf.new"
fi
cat >>"$conf.new" <<end
port 26379
dir /tmp
aclfile $SENTINEL_ACL_FILE
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $OWN
sentinel sentinel-user sentinel
sentinel sentinel-pass $SENTINEL_PASSWORD
sentinel auth-user jobs sentinel
sentinel auth-pass jobs $SENTINEL_PASSWORD
sentinel down-after-milliseconds jobs 5000
sentinel failover-timeout jobs 30000
end
mv "$conf.new" "$conf"
exec redis-server "$conf" --sentinel "$@"
