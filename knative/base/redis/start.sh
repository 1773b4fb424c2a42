#!/bin/sh
# Starts Redis with the users of users.acl, beside this file. The passwords of a user NAME are the files NAME and NAME.old of
# the Secret; Redis gets their SHA-256 alone. A user without a file cannot log in. The keys that they may use begin with
# REDIS_KEY_PREFIX, where that is set.
#
# A backup that was put beside the data as restore.tar takes its place: see backup.sh. What was there before is kept in
# before-restore.
set -eu
: "${PASSWORDS:=/passwords}" "${ACL_FILE:=/tmp/users.acl}" "${DATA:=/data}" "${REDIS_KEY_PREFIX:=}"

umask 077
if [ -f "$DATA/restore.tar" ]; then
  echo "Restoring $DATA/restore.tar"
  rm -rf "$DATA/restoring"
  mkdir "$DATA/restoring"
  tar -x -f "$DATA/restore.tar" -C "$DATA/restoring"
  if [ -d "$DATA/appendonlydir" ]; then
    rm -rf "$DATA/before-restore"
    mv "$DATA/appendonlydir" "$DATA/before-restore"
  fi
  mv "$DATA/restoring/appendonlydir" "$DATA"
  rm -rf "$DATA/restore.tar" "$DATA/restoring"
fi
keys="s#([~&])(jobs?|idempotency)#\1$REDIS_KEY_PREFIX\2#g"
sed -n 's/^user //p' "$(dirname "$0")/users.acl" | sed -E "$keys" | while read -r name rules; do
  printf 'user %s %s' "$name" "$rules"
  for password in "$PASSWORDS/$name" "$PASSWORDS/$name.old"; do
    if [ -f "$password" ]; then
      printf ' #%.64s' "$(sha256sum <"$password")"
    fi
  done
  echo
done >"$ACL_FILE"
exec redis-server --aclfile "$ACL_FILE" "$@"
