#!/usr/bin/env bats
# The upper-casing conversation of 04_epoll_lt: upper_server and upper_client.

load common

# Runs the client on this input.
talk() {
  patiently "$(program upper_client)" "$port"
}

@test "upper_server and upper_client: they print their usage, and refuse bad arguments" {
  for name in upper_server upper_client; do
    run --separate-stderr patiently "$(program "$name")" --help
    same "$status" 0
    same "$output" "usage: $name [port [address]]"
    refuses "$name" '' ''
    for words in x 65536 -1 '65535 localhost' '1688 127.0.0.1 more'; do
      # shellcheck disable=SC2086 # words
      refuses "$name" "${words##* }" $words
    done
  done
}

@test "upper_server and upper_client: without arguments, 127.0.0.1 and port 1688" {
  local name call=bind
  for name in upper_server upper_client; do
    run patiently strace -o "$log" -e trace="$call" \
      -e inject="$call":error=ECONNREFUSED "$(program "$name")"
    same "$output" "$name: $call: Connection refused"
    same "$status" 1
    grep -F 'sin_port=htons(1688), sin_addr=inet_addr("127.0.0.1")' "$log"
    call=connect # the client's
  done
}

@test "upper_server: a socket never takes the place of a closed stdin or stderr" {
  RUN="sh -c 'exec \"\$@\" <&- 2>&-' -" start upper_server
  [[ $(readlink "/proc/$pid/fd/"[012]) != *socket:* ]]
}

@test "upper_server: ASCII letters come back as capitals, all else unchanged" {
  local all=$BATS_TEST_TMPDIR/all
  LC_ALL=C awk 'BEGIN { for (i = 0; i < 256; i++) printf "%c", i; print "\342\202\254a\303a\377a" }' >"$all"
  LC_ALL=C tr '[:lower:]' '[:upper:]' <"$all" >"$all.expected"
  gives 'cat "$all.expected"' ask <"$all"
}

# bats test_tags=whole
@test "upper_server: a long text comes back whole" {
  local text=$BATS_TEST_TMPDIR/text
  head -c 1000000 /dev/zero | tr '\0' a >"$text"
  gives 'tr a A <"$text"' ask <"$text"
}

@test "upper_server: if send() takes only a part, the rest follows" {
  RUN=$(preload fault FAULT_SIZE=few) start upper_server
  connect 'hello, world'
  gives 'printf HELLO,\ WORLD' receive_bytes 12
  # Meanwhile, it waits for nothing else, though a client has half-closed.
  stop
  printf 'hello, world' >"$BATS_TEST_TMPDIR/sent"
  in_background ask <"$BATS_TEST_TMPDIR/sent" >"$BATS_TEST_TMPDIR/came"
  wait_until has_sockets close-wait 1
  kill -CONT "$pid"
  wait_until ended "$started"
  same "$(<"$BATS_TEST_TMPDIR/came")" 'HELLO, WORLD'
  same "$(grep EPOLLOUT "$out" | grep EPOLLRDHUP)" ''
}

# bats test_tags=whole
@test "upper_server: shows each event, EPOLLIN and EPOLLOUT in turn" {
  local word
  connect
  for word in one two; do
    printf '%s' "$word" >&"$client"
    same "$(receive_bytes 3)" "${word^^}"
  done
  disconnect "$client"
  wait_until has_descriptors "$without_clients"
  settles "$pid"
  listener=$(sed -n '2s/:.*//p' "$out")
  fd=$(sed -n '3s/:.*//p' "$out")
  head -n 3 "$out" # bats shows this if the next line fails
  [[ $listener == fd\ [3-9] && $fd == fd\ [4-9] ]]
  same "$(<"$out")" "listening on 127.0.0.1:$port
$listener: EPOLLIN
$fd: EPOLLIN
$fd: EPOLLOUT
$fd: EPOLLIN
$fd: EPOLLOUT
$fd: EPOLLIN"
}

# bats test_tags=whole
@test "upper_server: talks with many clients at once" {
  connect_many 50
  wait_until has_descriptors $((without_clients + 50))
  stop # so that one wait brings many events
  for client in "${clients[@]}"; do
    printf 'hello %d' "$client" >&"$client"
  done
  wait_until has_arrived
  kill -CONT "$pid"
  for client in "${clients[@]}"; do
    gives 'printf "HELLO %d" "$client"' receive_bytes $((6 + ${#client}))
  done
  # Then waits that bring one event, which is all that they show.
  printf 'a' >&"$client"
  gives 'printf A' receive_bytes 1
  same "$(shown -c EPOLLOUT)" 51
}

# bats test_tags=whole
@test "upper_server: it stops reading from a client that does not read" {
  connect
  in_background cat /dev/zero 1>&"$client" 2>/dev/null
  wait_until is_not_read
  before=$(descriptors)
  answers
  wait_until has_descriptors "$before"
  tries=20 rests # the kernel may find room for a little more
}

@test "upper_server: has no idle limit, and uses no CPU time" {
  RUN="strace -D -o ${log@Q} -e trace=$WAITS" start upper_server
  connect a
  gives 'printf A' receive_bytes 1
  rests
  end_trace
  echo 'waits without a limit of time, and all:'
  same "$(grep -cE ', [0-9]+, (-1[,)]|NULL,)' "$log")" \
    "$(grep '^epoll' "$log" | grep -cvE ', 0(, NULL, 8)?\) += ')" # which are no looks
}

@test "upper_server: a client that resets or leaves does no harm" {
  connect a
  wait_until has_response
  # The reply is unread, so this closes with a reset.
  disconnect "$client"
  wait_until has_descriptors "$without_clients"
  shown EPOLLERR | grep -w EPOLLHUP
  silent_client
  disconnect "$client"
  wait_until has_descriptors "$without_clients"
  answers
  wait_until has_descriptors "$without_clients"
  rests
}

@test "upper_server: a client that has gone before it is answered does no harm" {
  answers_the_gone upper_server hello
}

# bats test_tags=waits
@test "upper_server: out of descriptors, it serves the clients it has, then the others" {
  start_crowded upper_server
  tries=4 rests # each second
  shown=$(<"$out")
  nap 1.2 # it tries again, and no event comes
  same "$(<"$out")" "$shown"
  for client in "${clients[@]}"; do
    printf 'hello' >&"$client"
    gives 'printf HELLO' receive_bytes 5
    disconnect "$client"
  done
  same "$(<"$err")" 'upper_server: accept: Too many open files'
}

# bats test_tags=waits
@test "upper_server: when accept fails, it says so once, and later serves all" {
  survives_accept upper_server
  accepts_behind upper_server
}

@test "upper_server: its limit of descriptors is as high as its table and the hard limit allow" {
  limits_descriptors upper_server 65536
}

@test "upper_server: if it cannot wait for a client's socket, it closes that client" {
  closes_only upper_server epoll_ctl 1 ''
  closes_only upper_server epoll_ctl 2 'hello'
  closes_only upper_server epoll_ctl 3 'hello' HELLO
}

@test "upper_server: when recv or send says EINTR or EAGAIN, it tries again" {
  repeats_calls upper_server EINTR EAGAIN
}

@test "upper_server: Ctrl-C and kill end it, but a stop does not" {
  for signal in INT TERM; do
    RUN='env --default-signal=INT' start upper_server
    connect a
    gives 'printf A' receive_bytes 1
    stop_and_continue
    answers
    end_by "$signal"
    same "$(<"$err")" ''
  done
}

# bats test_tags=whole
@test "upper_client: shows each reply, skips empty lines, ends only on q" {
  start upper_server
  run --separate-stderr talk < <(printf 'hello\n\nx\nwörld\nq\0r\nq\nmore\n')
  same "$status" 0
  same "$output" 'please input: HELLO
please input: please input: X
please input: WöRLD
please input: QR
please input: '
  same "$stderr" ''
  same "$(shown -c EPOLLOUT)" 4
}

# bats test_tags=whole
@test "upper_client: waits for the whole reply to a long line, and prints it" {
  local line=$BATS_TEST_TMPDIR/line
  seq 20000 | tr '\n' a | head -c 100000 >"$line"
  start upper_server
  gives 'printf "please input: %s\nplease input: \n" "$(tr a A <"$line")"' \
    talk <"$line"
  # Where only a part of the answer comes, it waits for the rest.
  nc_server HE
  in_background "$(program upper_client)" "$port" <"$line" >/dev/null 2>&1
  wait_until client_has_read 2
  rests "$started"
}

@test "upper_client: a reply may arrive in pieces" {
  nc_server H E L L O
  same "$(printf 'hello\nq\n' | talk)" 'please input: HELLO
please input: '
  chunk=$(printf '%01024d' 1)
  nc_server "${chunk:0:500}" "${chunk:500}"
  same "$(talk <<<"$chunk"$'\nq')" "please input: $chunk"$'\nplease input: '
}

@test "upper_client: if send() takes only a part, the rest follows" {
  start upper_server
  few=$(preload fault FAULT_SIZE=few | tr '\n' ' ')
  same "$(eval "patiently $few \"\$(program upper_client)\" $port" <<<hello)" \
    $'please input: HELLO\nplease input: '
}

@test "upper_client: takes no more bytes for a reply than it has sent" {
  for words in HELLOAGAIN 'HE LLOAGAIN'; do
    # shellcheck disable=SC2086 # one or two
    nc_server $words
    pid=$nc PATIENCE=3 run talk < <(printf 'hello\nagain\n')
    same "${lines[0]}" 'please input: HELLO'
    [[ ${lines[*]:1} == *@('went away'|': AGAIN')* ]] # and does not wait for more
  done
}

@test "upper_client: says so when it cannot send any more" {
  start upper_server
  run patiently strace -o "$log" -e trace=sendto \
    -e inject=sendto:error=ECONNRESET "$(program upper_client)" "$port" <<<hello
  grep -q INJECTED "$log" || return 0 # write() may do what send() does
  same "$status" 1
  same "$output" $'please input: \nupper_client: the server went away'
}

# Starts nc as a server that, when it has heard something, sends each word by
# itself, or leaves at END. Sets $nc, $port, and $heard to a file of what it hears.
nc_server() { # word...
  local said=$BATS_TEST_TMPDIR/nc.$((++starts)) word
  heard=$said.heard
  mkfifo "$said.in"
  in_background nc -l -v 127.0.0.1 0 <>"$said.in" >"$heard" 2>"$said"
  nc=$started
  wait_until nc_listens "$said"
  in_background send_words "$said.in" "$@" >/dev/null
}

nc_listens() { # file, and sets $port
  [[ $(<"$1") =~ 'Listening on '[^$'\n']*' '([0-9]+) ]] && port=${BASH_REMATCH[1]}
}

send_words() { # file word...
  wait_until [ -s "$heard" ]
  local sent=0 talker
  for word in "${@:2}"; do
    [ "$word" != END ] || { kill "$nc" && return; }
    # A stop, as by Ctrl-Z, ends a recv() that waits for the rest. (It may have left.)
    talker=$(ss -Htnp "dst 127.0.0.1:$port" | sed -n 's/.*upper_client",pid=\([0-9]*\).*/\1/p')
    [[ $sent == 0 || -z $talker ]] || stop_and_continue "$talker"
    printf '%s' "$word" >"$1"
    wait_until client_has_read $((sent += ${#word}))
  done
}

# True when the client has read so many bytes, or for a while leaves the last ones until
# there are more (SO_RCVLOWAT, socket(7)).
client_has_read() { # bytes
  [[ $(ss -Htni "dst 127.0.0.1:$port") =~ ^ESTAB\ +([0-9]+)\ .*bytes_received:$1\  ]] &&
    ((BASH_REMATCH[1] == 0 || ++late % 50 == 0))
}

@test "upper_client: at the prompt, says so when the server goes away" {
  start upper_server
  local input=$BATS_TEST_TMPDIR/input said=$BATS_TEST_TMPDIR/said code=0
  mkfifo "$input"
  exec {typing}<>"$input"
  in_background "$(program upper_client)" "$port" <"$input" >"$said" 2>&1
  local talker=$started
  client=$typing send 'hello\nagain\n' # in one piece, as a paste comes
  wait_until grep -q AGAIN "$said"
  kill -TERM "$pid"
  wait_until ended "$talker"
  wait "$talker" || code=$?
  same "$code" 1
  same "$(cat "$said")" \
    $'please input: HELLO\nplease input: AGAIN\nplease input: \nupper_client: the server went away'
}

@test "upper_client: says so when the server goes away before it answers" {
  for part in '' HE; do
    # shellcheck disable=SC2086 # a word, or none
    nc_server $part END
    run patiently "$(program upper_client)" "$port" <<<hello
    same "$status" 1
    [[ $output == 'please input: '?("$part")$'\nupper_client: the server went away' ]]
  done
}

@test "upper_client: its connection never takes the place of a closed stdin, stdout or stderr" {
  RUN="strace -D -o ${log@Q} -e trace=recvfrom,recvmsg,read" start upper_server
  # Without a keyboard it leaves, and does not read its connection as one.
  same "$(timeout 20 "$(program upper_client)" "$port" <&-)" \
    'please input: '
  # Without a terminal it sends what was typed, and no prompts.
  printf 'hello\nq\n' |
    timeout 20 "$(program upper_client)" "$port" >&- 2>&- || [ $? -eq 1 ]
  wait_until has_descriptors "$without_clients"
  end_trace
  same "$(sed -n -E '/MSG_PEEK/d; s/^(recv|read)[a-z]*\([5-9], [^"]*"([^"]*)".*/\2/p' "$log" | tr -d '\n')" \
    hello
}
