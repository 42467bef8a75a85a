#!/usr/bin/env bash
# Runs a command, and again when it fails: keep_running.sh TRIES COMMAND...
# Ends with the command's code when that is 0, or 130 or 143: then a person or the machine has stopped it; or 2: its arguments are wrong. Ends
# with it, too, after TRIES failures in a row of which each came within ten minutes. A SIGTERM or SIGINT is
# handed on to the command, which saves.
# Leaves its own process in ~/jaxlink.pid, and 'running' or the code at the end in ~/jaxlink.status.
set -euo pipefail

if [ "$#" -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo 'error: keep_running.sh takes a number of tries and a command' >&2
  exit 2
fi
tries=$1
shift
early=${JAXLINK_EARLY_SECONDS:-600}
pause=${JAXLINK_PAUSE_SECONDS:-10}

if [ -e ~/jaxlink.pid ] && kill -0 "$(cat ~/jaxlink.pid)" 2> /dev/null; then
  echo "error: process $(cat ~/jaxlink.pid) is running here already" >&2
  exit 2
fi
echo "$$" > ~/jaxlink.pid
echo running > ~/jaxlink.status

child=''
signal=''
hand_on() {
  signal=$1
  if [ -n "$child" ]; then
    kill -s "$signal" "$child" 2> /dev/null || true
  fi
}
trap 'hand_on TERM' TERM
trap 'hand_on INT' INT

finish() {
  echo "$1" > ~/jaxlink.status
  rm -f ~/jaxlink.pid
  exit "$1"
}

failed=0
while true; do
  began=$SECONDS
  "$@" &
  child=$!
  if [ -n "$signal" ]; then # it came before the child was known, which ignores INT until it says otherwise
    kill -s TERM "$child" 2> /dev/null || true
  fi
  code=0
  wait "$child" || code=$?
  while kill -0 "$child" 2> /dev/null; do # a signal ends wait, not the command
    code=0
    wait "$child" || code=$?
  done
  child=''
  case $code in 0 | 2 | 130 | 143) finish "$code" ;; esac
  if [ -n "$signal" ]; then
    finish "$code"
  fi
  if [ $((SECONDS - began)) -ge "$early" ]; then
    failed=0
  fi
  failed=$((failed + 1))
  echo "$(date --utc '+%F %T') code $code after $((SECONDS - began)) s, failure $failed of $tries" >&2
  if [ "$failed" -ge "$tries" ]; then
    finish "$code"
  fi
  sleep "$pause" &
  wait $! || true
  if [ -n "$signal" ]; then
    finish "$code"
  fi
done
