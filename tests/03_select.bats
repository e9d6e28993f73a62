#!/usr/bin/env bats
# What only 03_select does.

load common

# bats test_tags=whole
@test "03_select: the 1,100th client waits, and is served when others leave" {
  (($(ulimit -Hn) >= 1200)) || skip "only $(ulimit -Hn) descriptors can be open here"
  ulimit -n 1200
  start 03_select
  connect_many 1100
  wait_until says 'Too many open files'
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  hears_nothing
  tries=4 rests # it tries accept again each second
  for ((i = 0; i < 100; i++)); do
    disconnect "${clients[i]}"
  done
  gives hello receive
  # So are those who have been inside all the time, up to the highest descriptor.
  for i in 100 1019; do
    client=${clients[i]}
    printf 'GET / HTTP/1.0\n\n' >&"$client"
    gives hello receive
  done
  same "$(sed s/accept4/accept/ "$err")" '03_select: accept: Too many open files'
}

@test "03_select: says so when its listener does not fit an fd_set" {
  (($(ulimit -Hn) >= 1200)) || skip "only $(ulimit -Hn) descriptors can be open here"
  run patiently bash -c 'ulimit -n 1200
    for _ in {1..1100}; do exec {inherited}</dev/null; done
    exec "$0" 0 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3' "$(program 03_select)"
  same "$status" 1
  same "${output/: *: /: }" '03_select: Too many open files'
}

@test "03_select: it fills the sets anew in every turn" {
  # Some of the response has to wait for room, also where send() is tried first.
  RUN="strace -D -o ${log@Q} -e trace=pselect6,?poll,ppoll $(preload fault FAULT_SIZE=few)" \
    start 03_select
  silent_client
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  gives hello receive
  ! grep -q poll "$log" || return 0 # there are no sets
  end_trace
  # No descriptor is in both. (One that sends until EAGAIN never asks for room here.)
  ! grep -E '[[ ]([0-9]+)[] ].*, \[([0-9]+ )*\1[] ]' "$log" || return 1
}
