#!/usr/bin/env bash
# Mounts a bucket where all hosts write and read the run's folder: mount.sh BUCKET FOLDER
# Hosts have to see at once what another one wrote, so names and sizes are not remembered.
set -euo pipefail

if [ "$#" -ne 2 ]; then
  echo 'error: mount.sh takes a bucket and a folder' >&2
  exit 2
fi
bucket=$1 folder=$2

if ! command -v gcsfuse > /dev/null; then
  echo 'error: gcsfuse is not installed: see "Install Cloud Storage FUSE" in its documentation' >&2
  exit 1
fi
mkdir -p "$folder"
if mountpoint --quiet "$folder"; then
  echo "$folder is mounted already"
  exit 0
fi
gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$bucket" "$folder"
