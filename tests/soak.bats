#!/usr/bin/env bats
# Wears a stage out for $SOAK_SECONDS: ab, resets and silent clients at once.
# The stage is named by $STAGE; `upper` is the upper-case server.

load common

setup() {
  RESET=$(tool reset)
  printf 'GET / HTTP/1.0\r\n\r\n' >"$BATS_TEST_TMPDIR/request"
}

# Makes many requests, with and without keep-alive.
press() {
  if [ "$NAME" = upper_server ]; then
    local i
    for ((i = 0; i < 20; i++)); do
      same "$(head -c 100000 /dev/zero | tr '\0' a | ask | tr -d A | wc -c)" 0
    done
    return
  fi
  ab -q -r -s 20 -n 3000 -c 20 "$url" >"$BATS_TEST_TMPDIR/ab"
  ab -q -r -s 20 -k -n 3000 -c 20 "$url" >"$BATS_TEST_TMPDIR/ab.k"
}

# Resets connections at several points.
reset_many() {
  local bytes
  for bytes in 0 1 18; do
    timeout 60 "$RESET" "$port" "$bytes" 100 \
      <"$BATS_TEST_TMPDIR/request"
    timeout 60 "$RESET" "$port" 0 100 </dev/null
  done
}

# Opens connections that say nothing, or not enough, and leaves.
keep_silent() {
  local i clients=()
  for ((i = 0; i < 200; i++)); do
    connect
    clients+=("$client")
    ((i % 2)) || printf 'GET / HT' >&"$client"
  done
  sleep 0.5 # their purpose is to be there
  for client in "${clients[@]}"; do
    disconnect "$client"
  done
}

# A round of all of them, at once but for 02, where a silent client holds up
# all others, on purpose.
round() {
  if [ "$NAME" = 02_blocking_loop ]; then
    press
    reset_many
    keep_silent
    return
  fi
  local jobs=() job
  for job in press reset_many keep_silent; do
    "$job" 3>&- &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    wait "$job"
  done
}

is_without_clients() {
  has_sockets established 0 && has_sockets close-wait 0 &&
    has_sockets fin-wait-2 0 && has_sockets fin-wait-1 0
}

@test "$NAME: after all that it is as it was before" {
  local end before rounds=0 memory
  start "$NAME"
  before=$(descriptors)
  end=$((SECONDS + ${SOAK_SECONDS-240}))
  round
  PATIENCE=3 wait_until has_descriptors "$before"
  memory=$(resident)
  while ((SECONDS < end)); do
    round
    rounds=$((rounds + 1))
  done
  PATIENCE=3 wait_until has_descriptors "$before"
  PATIENCE=3 wait_until is_without_clients
  rests
  echo "# $NAME: $rounds rounds, $memory KB, then $(resident) KB" >&3
  (($(resident) - memory <= 256))
  answers
  same "$(cat "$err")" ''
  end_by TERM
}
