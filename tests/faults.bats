#!/usr/bin/env bats
# Makes each call that a server makes fail, in each way that it can: the cases
# are in faults.table. The stage is named by $STAGE; `upper` is the upper-case
# server.

load common

CLIENTS=6  # in each case, one after another
AT_ONCE=12 # cases that run at the same time
[[ $NAME == 01* ]] && CLIENTS=1

setup_file() {
  local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR option
  printf 'GET / HTTP/1.0\r\n\r\n' >"$BATS_FILE_TMPDIR/get"
  printf 'GET / HTTP/1.1\r\n\r\n' >"$BATS_FILE_TMPDIR/keep"
  printf 'POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n' |
    tee "$BATS_FILE_TMPDIR/nudge" >"$BATS_FILE_TMPDIR/post"
  printf 'POST / HTTP/1.0\r\n\r\n%040000d' 1 >"$BATS_FILE_TMPDIR/flood"
  [ "$NAME" = upper_server ] && printf 'hello' >"$BATS_FILE_TMPDIR/get"
  for option in $(rows | awk '{ print $1 }' | sort -u); do
    count_first_calls "$option"
  done
}

# --- The table -------------------------------------------------------------

# Prints the table's rows for this program, with its option, or a colon, in
# place of the pattern.
rows() {
  local pattern rest set stat
  local -A sets=()
  stat=$(strace -e trace=fstat,newfstatat true 2>&1 | sed -n '1s/(.*//p')
  sed -e ':more' -e '/\\$/ { N; s/\\\n */ /; b more' -e '}' \
    -e '/^#/d' -e '/^$/d' "$PROJECT/tests/faults.table" |
    while read -r pattern rest; do
      for set in "${!sets[@]}"; do
        rest=${rest//"$set"/${sets[$set]}}
      done
      if [[ $rest == '= '* ]]; then
        sets[$pattern]=${rest#= }
        continue
      fi
      [[ $NAME == 0[123]* ]] || rest=${rest/#accept/accept4}
      rest=${rest/#stat/$stat}
      [[ $pattern == *:* ]] || pattern+=::
      # shellcheck disable=SC2053 # a pattern
      [[ ${NAME/#keep/06keep} == ${pattern%%:*} ]] && echo "${pattern#*:} $rest"
    done
}

# Prints a line for each case of an outcome: option, call, occurrences, client, outcome
# and error. The occurrences are those from the program's start.
cases() { # outcome
  local option call when client outcome errors error before first at
  rows | while read -r option call when client outcome errors; do
    # shellcheck disable=SC2053 # a pattern
    [[ $outcome == $1 ]] || continue
    if ((CLIENTS == 1)); then
      when=${when%,*} outcome=${outcome/:2/:1}
    fi
    before=0 first=0
    [[ $call == libc:* ]] || read -r before first < <(awk -v call="${call#*,}" '
      $1 == call { print $2, $3; found = 1 }
      END { if (!found) print 0, 0 }' "$BATS_FILE_TMPDIR/first$option")
    case $when in
    start-*) at=$(seq $((before + 1)) $((before + ${when#*-}))) ;;
    start*) at=$(seq $((before + 1${when#start})) $((before + first))) ;; # or start+3
    *,*) at=$((before + first + ${when%,*})),$((before + first + ${when#*,})) ;;
    *) at=$((before + first + when)) ;;
    esac
    for when in $at; do
      for error in $errors; do
        echo "$option $call $when $client $outcome $error"
      done
    done
  done
}

# Counts how often the program makes each call before its main() begins, and
# from there until it listens.
count_first_calls() { # option
  log=$BATS_FILE_TMPDIR/strace$1
  RUN="strace -D -o ${log@Q}" start_with "$1"
  end
  awk '/^rt_sigaction\(SIGPIPE/ { main = 1 }
    /^[a-z]/ && !listens {
      name = $0
      sub(/\(.*/, "", name)
      calls[name] = 1
      if (main) first[name]++
      else before[name]++
    }
    /^write\(1, "listening/ { listens = 1 }
    END { for (name in calls) print name, before[name] + 0, first[name] + 0 }
  ' "$log" >"$BATS_FILE_TMPDIR/first$1"
}

# Ends the traced server, and waits until its trace is complete.
end() {
  end_by TERM
  [ ! -s "$log" ] || wait_until grep -q -e '^+++ killed' -e INJECTED "$log"
}

# Starts the program with an option, or none.
start_with() { # option-or-colon
  [ "$1" != : ] || set --
  start "$NAME" "$@"
}

# --- Clients: each fails where it is not answered -------------------------

send() { # file
  response=
  connect && cat "$BATS_FILE_TMPDIR/$1" >&"$client"
}

# Reads the response. Notes where it has waited for it in vain.
hear() { # read-option...
  local code=0
  IFS= read -r "$@" -t "$DEADLINE" -u "$client" response || code=$?
  ((code <= 128)) || neglected=$((neglected + 1))
}

# Sends a file, reads the response as far as the options say, and then sends $more, if
# it is set. Fails unless the response ends with these words.
exchange() { # file words read-option...
  send "$1" && hear "${@:3}"
  printf '%s' "${more-}" >&"$client"
  disconnect "$client"
  [[ $response == *"$2" ]]
}

get() {
  if [ "$NAME" = upper_server ]; then
    exchange get HELLO -N 5
  else
    exchange get 'Hello, world!' -d ''
  fi
}

# Goes on sending when it has its response.
post() {
  more=xx exchange post 'Hello, world!' -d ''
}

# Does not wait for the response's end.
leave() {
  exchange post 'Hello, world' -d '!'
}

# Keeps the connection until it has its response.
keep() {
  exchange keep 'Hello, world!' -N 114
}

# Sends more than the server reads in a turn, and goes on when it has its
# response, until the connection is reset.
flood() {
  local code=0
  send flood || true
  hear -d '!'
  wait_read || neglected=$((neglected + 1))
  printf 'x' >&"$client" && wait_read && printf 'x' >&"$client" ||
    code=$?
  disconnect "$client"
  [[ $response == *'Hello, world' ]] && return "$code"
}

# While it is not answered, it sends more, and somebody else connects.
nudge() {
  local piece looks=0 first
  send nudge
  first=$client response=
  while true; do
    ((++looks < DEADLINE * 10)) || return 1
    IFS= read -r -d '' -t 0.1 -u "$first" piece || true
    response+=$piece
    [[ $response != *'Hello, world!' ]] || break
    printf 'x' >&"$first"
    connect && disconnect "$client"
  done
  wait_until sleeps # or it would take what is the last edge for the lie
  disconnect "$first"
}

# --- Cases -----------------------------------------------------------------

# Sets $RUN to what makes a program's call fail, and writes of it to $log.
make_fail() { # call occurrences error
  local first=${2%,*} second=${2#*,}
  log=$BATS_TEST_TMPDIR/log
  : >"$log"
  if [[ $1 == libc:* ]]; then
    RUN=$(preload fault FAULT_LOG="${log@Q}" FAULT_CALL="${1#libc:}" \
      FAULT_ERRNO="$3" FAULT_FIRST="$first" FAULT_SECOND="$second")
    return
  fi
  ((first == second)) || first+=..$second+$((second - first))
  RUN="strace -D -o ${log@Q} -e trace=$1,pselect6,epoll_wait
    -e inject=${1#*,}:error=$3:when=$first"
  [[ $1 != *,* ]] || RUN+=" -e inject=${1%,*}:error=EMFILE:when=1"
}

# Prints what the program says of the failure.
complaint() { # call
  local call=${1#libc:} reason
  case $call in
  accept*) call=accept ;;
  pselect6) call='select' ;;
  lseek) call='write' ;; # both are dprintf's
  prlimit64)
    call=setrlimit
    grep -q 'RLIMIT_NOFILE, NULL, .*INJECTED' "$log" && call=getrlimit
    ;;
  esac
  reason=$(sed -n 's/.* E[A-Z0-9]* (\(.*\)) (INJECTED)$/\1/p' "$log" |
    head -n 1)
  echo "$NAME: $call: $reason"
}

# Fails unless the program ends in the way that it should, at its start or when it has
# clients.
ends() { # option call client
  local i
  start_with "$1" || ! alive
  for ((i = 0; i < CLIENTS; i++)); do
    ! alive || "$3" || true
  done 2>/dev/null
  ends_with 1
  wait_until grep -q INJECTED "$log"
  same "$(<"$err")" "$(complaint "$2")"
}

# Fails unless the server goes on as it should, and is then as it was before.
goes_on() { # option call occurrences client outcome
  local i shown lost=0 injected=1 neglected=0
  start_with "$1"
  for ((i = 0; i < CLIENTS; i++)); do
    "$4" || lost=$((lost + 1))
  done 2>/dev/null
  echo "lost: $lost of $CLIENTS clients, $neglected of them without an end"
  same "$neglected" 0
  same "$lost" "$([[ $5 == *:* ]] && echo "${5#*:}" || echo 0)"
  if [[ $NAME == 01* ]]; then
    ends_with "$lost"
  else
    answers
    wait_until has_descriptors "$without_clients"
    tries=10 rests # of which strace causes some
    end
  fi
  [[ $3 == *,* || $2 == *,* ]] && injected=2
  same "$(grep -c INJECTED "$log")" "$injected"
  # A server that spins makes thousands of calls.
  (($(wc -l <"$log") < 200))
  shown=$((CLIENTS + 1))
  [[ $NAME == 01* ]] && shown=1
  [ "$2" != getsockopt ] ||
    same "$(grep -c '^closed after' "$out")" "$((shown - injected))"
  [ "$5" = mute ] && shown=$((shown - injected))
  [[ $NAME == upper_server || $5 == loses:* ]] ||
    same "$(grep -cE '^(GET|POST) ' "$out")" "$shown"
  case $NAME:$5 in
  *:pauses) same "$(<"$err")" "$(complaint "$2")" ;;
  01*:loses:1) same "$(<"$err")" \
    "$NAME: the client left before it was answered" ;;
  *) same "$(<"$err")" '' ;;
  esac
}

try_case() { # option call occurrences client outcome error
  make_fail "$2" "$3" "$6"
  if [ "$5" = ends ]; then
    ends "$1" "$2" "$4"
  else
    goes_on "$1" "$2" "$3" "$4" "$5"
  fi
}

# Tries the cases that it reads, several at once. Fails where one has failed.
try_cases() {
  local words number=0 tried failed=0 folder
  while read -r -a words; do
    while (($(jobs -r | wc -l) >= AT_ONCE)); do
      wait -n || true
    done
    folder=$BATS_TEST_TMPDIR/$((++number))
    mkdir "$folder"
    (
      trap - ERR
      trap '' PIPE
      BATS_TEST_TMPDIR=$folder
      trap end_programs EXIT
      echo "--- ${words[*]}"
      try_case "${words[@]}"
      : >"$folder/survived"
    ) >"$folder/said" 2>&1 </dev/null 3>&- &
  done
  wait
  for ((tried = 1; tried <= number; tried++)); do
    [ ! -e "$BATS_TEST_TMPDIR/$tried/survived" ] || continue
    cat "$BATS_TEST_TMPDIR/$tried/said"
    failed=1
  done
  ((number > 0 && failed == 0))
}

@test "$NAME: a failure that it cannot survive ends it with a message and exit code 1" {
  cases ends | try_cases
}

@test "$NAME: EAGAIN, EINTR and harmless errors change nothing" {
  cases nothing | try_cases
}

@test "$NAME: a client's socket that fails ends that client and no other" {
  cases 'loses:*' | try_cases
}

@test "$NAME: when accept() fails it pauses, says so, and then goes on" {
  [[ $NAME != 01* ]] || skip 'ends'
  cases pauses | try_cases
}

@test "$NAME: if its console fails, only the text is lost" {
  cases mute | try_cases
}

# Leaves with the response unread, which resets the connection.
reset() {
  send post
  wait_until has_response
  disconnect "$client"
}

abandon() {
  client_in_mid_request
  disconnect "$client"
}

# Runs the program under valgrind, and does so many things to it.
run_valgrind() { # client...
  local log=$BATS_TEST_TMPDIR/valgrind one
  RUN="valgrind --leak-check=full --log-file=$log" PATIENCE=3 start "$NAME"
  for one; do
    "$one"
  done
  if [[ $NAME != 01* ]]; then
    PATIENCE=3 wait_until has_descriptors "$without_clients"
    client_in_mid_request # what it has is no leak
    kill -TERM "$pid"
    disconnect "$client"
  fi
  PATIENCE=3 wait_until grep 'ERROR SUMMARY' "$log"
  cat "$log"
  grep 'ERROR SUMMARY: 0 errors' "$log"
}

@test "$NAME: valgrind finds no leak in it, and no other fault" {
  case $NAME in
  01*)
    for client in get post flood reset abandon; do
      run_valgrind "$client"
    done
    ;;
  upper_server)
    run_valgrind get reset get abandon get
    # The same with the other end of the conversation, but for the line that main()
    # has at its end.
    log=$BATS_TEST_TMPDIR/valgrind.client
    start upper_server
    printf 'hello\n\n%03000d\nq\n' 1 | timeout 60 valgrind --leak-check=no \
      --log-file="$log" "$(program upper_client)" "$port"
    cat "$log"
    grep 'ERROR SUMMARY: 0 errors' "$log"
    ;;
  *) run_valgrind get post keep flood reset get abandon post get ;;
  esac
}

@test "$NAME: every call that it makes is in the table" {
  for option in $(rows | awk '{ print $1 }' | sort -u); do
    for client in get post; do
      [ "$NAME $client" != 'upper_server post' ] || continue
      log=$BATS_TEST_TMPDIR/all$option$client
      RUN="strace -D -o ${log@Q}" start_with "$option"
      "$client"
      [[ $NAME == 01* ]] || end
      wait_until grep -q '^+++ ' "$log"
    done
  done
  sed -s '1,/^rt_sigaction(SIGPIPE/d; /^[^a-z]/d; s/(.*//' \
    "$BATS_TEST_TMPDIR/all"* | sort -u >"$BATS_TEST_TMPDIR/calls"
  rows | awk '{ sub("libc:", "", $2); print $2 }' | tr , '\n' | sort -u \
    >"$BATS_TEST_TMPDIR/rows"
  [ -s "$BATS_TEST_TMPDIR/calls" ]
  same "$(comm -23 "$BATS_TEST_TMPDIR/calls" "$BATS_TEST_TMPDIR/rows")" ''
}
