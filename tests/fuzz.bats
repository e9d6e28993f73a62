#!/usr/bin/env bats
# Throws $FUZZ_STREAMS mutated requests, cut at random, at a stage; tests/sanitized
# builds it. The stage is named by $STAGE; `upper` is the upper-case server.
# $FUZZ_SEED repeats a run, but for what the clock has a say in.

load common

setup() {
  local folder=$BATS_TEST_TMPDIR/requests
  mkdir "$folder"
  printf 'GET / HTTP/1.0\r\nHost: a\r\nA: b\r\n\r\n' >"$folder/1"
  printf 'HEAD / HTTP/1.1\r\nConnection: a, close\r\n\r\n' >"$folder/2"
  printf 'POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello' >"$folder/3"
  printf 'GET / HTTP/1.1\nTransfer-Encoding: chunked\n\n0\n\n' >"$folder/4"
  printf 'GET / HTTP/1.1\r\nContent-Length: 00\r\nA:\tb\r\n\r\n' >"$folder/5"
  printf 'GET /%08000d HTTP/1.1\r\nA: b\r\n\r\n' 1 >"$folder/6"
  printf 'GET /%08200d HTTP/1.1\r\nA: b\r\n\r\n' 1 >"$folder/7"
  printf 'GET / HTTP/1.1\r\nHost: a\r\n\r\n%.0s' {1..50} >"$folder/8"
}

# Sends a file in up to three pieces, and ends the connection in some way.
throw() { # file
  case $((RANDOM % 4)) in
  0)
    timeout 0.1 "$PROJECT/tests/reset" "$port" $((RANDOM % 120)) 1 <"$1" || true
    return
    ;;
  1)
    timeout 0.1 nc -N 127.0.0.1 "$port" <"$1" >/dev/null || true
    return
    ;;
  esac
  connect
  {
    head -c $((RANDOM >> RANDOM % 15))
    head -c $((RANDOM >> RANDOM % 15))
    ((RANDOM % 3)) && cat
  } <"$1" >&"$client" || true
  if ((RANDOM % 2)); then
    IFS= read -r -d '' -t 0.02 -u "$client" _ || true
  fi
  disconnect "$client"
}

@test "$NAME: mutated requests, cut at random, find no fault in it" {
  local seed=${FUZZ_SEED-$RANDOM} number folder
  echo "# $NAME: FUZZ_SEED=$seed" >&3
  start "$NAME"
  RANDOM=$seed
  trap '' PIPE
  for ((number = 1; number <= ${FUZZ_STREAMS-2800}; number++)); do
    alive || break
    zzuf -s $((seed * 100000 + number)) -r "0.000$((RANDOM % 10)):0.05" \
      <"$BATS_TEST_TMPDIR/requests/$((RANDOM % 8 + 1))" \
      >"$BATS_TEST_TMPDIR/mutant"
    throw "$BATS_TEST_TMPDIR/mutant" 2>/dev/null 3>&-
  done
  cat "$err"
  answers
  wait_until has_descriptors "$without_clients"
  same "$(LC_ALL=C tr -d '\t\n -~' <"$out" | wc -c)" 0
  end_by TERM # the sanitizers would make its exit code another one
  same "$(cat "$err")" ''
}
