#!/bin/sh
# Starts Redis with the users of users.acl, beside this file. The passwords of a user NAME are the files NAME and NAME.old of
# the Secret; Redis gets their SHA-256 alone. A user without a file cannot log in.
set -eu
: "${PASSWORDS:=/passwords}" "${ACL_FILE:=/tmp/users.acl}"

umask 077
sed -n 's/^user //p' "$(dirname "$0")/users.acl" | while read -r name rules; do
  printf 'user %s %s' "$name" "$rules"
  for password in "$PASSWORDS/$name" "$PASSWORDS/$name.old"; do
    if [ -f "$password" ]; then
      printf ' #%.64s' "$(sha256sum <"$password")"
    fi
  done
  echo
done >"$ACL_FILE"
exec redis-server --aclfile "$ACL_FILE" "$@"
