#!/bin/sh
# Writes a copy of the append-only file to standard output, as a tar, while Redis goes on:
#   kubectl -n knative-jobs exec deploy/redis -- sh /redis/backup.sh >jobs.tar
# Redis may rewrite the file meanwhile, in new files that a new manifest names. So what the manifest names is copied until
# it is the same before and after. A command that is cut off at the end is no harm: Redis leaves it out when it loads.
set -eu
: "${DATA:=/data}"
cd "$DATA"

copy=backup.$$
trap 'rm -rf "$copy"' EXIT
until
  rm -rf "$copy"
  mkdir -p "$copy/appendonlydir"
  cp appendonlydir/appendonly.aof.manifest "$copy/appendonlydir"
  cut -d ' ' -f 2,6 "$copy/appendonlydir/appendonly.aof.manifest" | while read -r file type; do
    case $type in
      b) ln "appendonlydir/$file" "$copy/appendonlydir" ;; # the base does not change
      *) cp "appendonlydir/$file" "$copy/appendonlydir" ;;
    esac
  done && cmp -s appendonlydir/appendonly.aof.manifest "$copy/appendonlydir/appendonly.aof.manifest"
do
  sleep 1
done
tar -c -f - -C "$copy" appendonlydir
