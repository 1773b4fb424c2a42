#!/bin/sh
# Writes a copy of the append-only file to standard output, as a tar, while Redis goes on:
#   kubectl -n knative-jobs exec deploy/redis -- sh /redis/backup.sh >jobs.tar
# Redis may rewrite the file meanwhile, in new files that a new manifest names. So what the manifest names is copied until
# it is the same before and after. A command that is cut off at the end is no harm: Redis leaves it out when it loads.
set -eu
: "${DATA:=/data}" "${TRIES:=60}"
cd "$DATA"

copy=backup.$$ manifest=appendonlydir/appendonly.aof.manifest
trap 'rm -rf "$copy"' EXIT

copied() {
  rm -rf "$copy"
  mkdir -p "$copy/appendonlydir" || return
  cp "$manifest" "$copy/appendonlydir" || return
  cut -d ' ' -f 2,6 "$copy/$manifest" | while read -r file type; do
    case $type in
      b) ln "appendonlydir/$file" "$copy/appendonlydir" || exit ;; # the base does not change
      *) cp "appendonlydir/$file" "$copy/appendonlydir" || exit ;;
    esac
  done || return
  cmp -s "$manifest" "$copy/$manifest"
}

until copied; do
  TRIES=$((TRIES - 1))
  if [ "$TRIES" = 0 ]; then
    echo "No backup was made: the files of $DATA could not be copied" >&2
    exit 1
  fi
  sleep 1
done
tar -c -f - -C "$copy" appendonlydir
