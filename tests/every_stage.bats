#!/usr/bin/env bats
# What every stage does, 01 to 06. The stage is named by $STAGE.

load common

@test "$STAGE: --help and -h print the usage" {
  local option line='usage: '$STAGE' [port [address]]'
  [ "$STAGE" = 06_tcp_options ] &&
    line='usage: '$STAGE' [--cork | --nodelay] [port [address]]'
  for option in -h --help; do
    run --separate-stderr "$(program "$STAGE")" "$option"
    same "$status" 0
    same "$output" "$line"
    same "$stderr" ''
  done
}

# Fails unless the arguments are refused in the way that every server refuses.
refuses() { # what-it-names argument...
  local named=$1
  shift
  run --separate-stderr timeout 5 "$(program "$STAGE")" "$@"
  echo "arguments: $* exit code: $status stdout: $output stderr: $stderr"
  [ "$status" -eq 2 ]
  [ "$output" = '' ]
  [ "${#stderr_lines[@]}" -eq 2 ]
  [[ ${stderr_lines[0]} == "$STAGE: "*"'$named'" ]]
  [[ ${stderr_lines[1]} == "usage: $STAGE "* ]]
}

@test "$STAGE: a port that is none is refused" {
  local word
  for word in x 80x '' ' 80' +80 -1 65536 99999999999999999999 0x50 80.0; do
    refuses "$word" "$word"
  done
}

@test "$STAGE: an address that is none is refused" {
  local word
  for word in localhost 1.2.3 256.0.0.1 ::1 '' 127.0.0.1.5; do
    refuses "$word" 8080 "$word"
  done
}

@test "$STAGE: an unknown option and a word too many are refused" {
  refuses --port --port
  refuses -p -p 8080
  refuses more 8080 127.0.0.1 more
}

@test "$STAGE: without arguments it asks for 127.0.0.1, port 8080" {
  local log=$BATS_TEST_TMPDIR/log
  # The call is made to fail, so that it does not matter who has the port.
  run strace -o "$log" -e trace=bind -e inject=bind:error=EADDRINUSE \
    "$(program "$STAGE")"
  same "$status" 1
  grep -F 'sin_port=htons(8080), sin_addr=inet_addr("127.0.0.1")' "$log"
}

@test "$STAGE: it says where it listens, on the address that was asked for" {
  start_program "$(program "$STAGE")" 0 127.0.0.2
  [[ $(cat "$out") =~ ^listening\ on\ http://127\.0\.0\.2:[1-9][0-9]*/$ ]]
  curl -sS "http://127.0.0.2:$port/"
}

@test "$STAGE: a port in use is an error with its reason" {
  start "$STAGE"
  run --separate-stderr timeout 5 "$(program "$STAGE")" "$port"
  same "$status" 1
  same "$output" ''
  same "$stderr" "$STAGE: bind: Address already in use"
}

@test "$STAGE: a stdout that takes nothing is an error with its reason" {
  local code=0
  timeout 5 "$(program "$STAGE")" 0 >/dev/full 2>"$BATS_TEST_TMPDIR/err" ||
    code=$?
  same "$code" 1
  same "$(cat "$BATS_TEST_TMPDIR/err")" \
    "$STAGE: write: No space left on device"
}

@test "$STAGE: curl gets the tutorial's response, byte for byte" {
  start "$STAGE"
  same "$(curl -sSi "$url")" "$(hello)"
}

@test "$STAGE: a request may end in either style of blank line" {
  local request
  for request in 'GET / HTTP/1.0\n\n' 'GET / HTTP/1.0\r\n\r\n' \
    'GET / HTTP/1.0\nA: b\n\n' 'GET / HTTP/1.0\r\nA: b\n\r\n' \
    'GET / HTTP/1.0\r\nA: b\r\n\r\n'; do
    start "$STAGE"
    same "$(ask_for "$request")" "$(hello)"
  done
}

@test "$STAGE: a request may come a byte at a time" {
  start "$STAGE"
  local byte
  printf 'GET / HTTP/1.0\r\nHost: a\r\n\r\n' >"$BATS_TEST_TMPDIR/request"
  same "$(while IFS= read -r -d '' -n 1 byte; do
    printf '%s' "$byte"
    sleep 0.005
  done <"$BATS_TEST_TMPDIR/request" | ask)" "$(hello)"
}

@test "$STAGE: a request may be cut in two anywhere" {
  local request=$'GET / HTTP/1.0\r\nA: b\r\n\r\n' cut
  for ((cut = 14; cut < ${#request}; cut++)); do
    start "$STAGE"
    connect
    printf '%s' "${request:0:cut}" >&"$client"
    # The first part has been read before the second one is sent.
    wait_until has_read_all
    printf '%s' "${request:cut}" >&"$client"
    same "$(cat <&"$client")" "$(hello)"
    disconnect "$client"
  done
}

@test "$STAGE: a request of 8192 bytes is served, a longer one gets 431" {
  local filler
  # 23 bytes of the request are not filler.
  filler=$(head -c $((8192 - 23)) /dev/zero | tr '\0' a)
  start "$STAGE"
  same "$(ask_for 'GET / HTTP/1.0\r\nA: %s\r\n\r\n' "$filler")" "$(hello)"
  start "$STAGE"
  same "$(ask_for 'GET / HTTP/1.0\r\nA: %s\r\n\r\n' "a$filler")" \
    "$(too_large)"
  # Also where its end comes in the piece that makes it too long.
  start "$STAGE"
  connect
  printf 'GET / HTTP/1.0\r\n' >&"$client"
  wait_until has_read_all
  printf 'A: %s\r\n\r\n' "a$filler" >"$BATS_TEST_TMPDIR/rest"
  cat "$BATS_TEST_TMPDIR/rest" >&"$client"
  same "$(timeout "$DEADLINE" head -c "$(too_large | wc -c)" <&"$client")" \
    "$(too_large)"
}

@test "$STAGE: 100,000 bytes without a line end get 431" {
  start "$STAGE"
  same "$(head -c 100000 /dev/zero | tr '\0' a | ask)" "$(too_large)"
}

@test "$STAGE: a client that half-closes behind its request is answered" {
  start "$STAGE"
  same "$(ask_for 'GET / HTTP/1.0\r\n\r\n')" "$(hello)"
}

# bats test_tags=whole
@test "$STAGE: a POST of 10 MB gets its response whole" {
  local body=$BATS_TEST_TMPDIR/body
  head -c 10000000 /dev/zero >"$body"
  start "$STAGE"
  same "$(curl -sS -w '%{http_code}' -H Expect: --data-binary "@$body" "$url")" \
    'Hello, world!200'
  # curl stops sending when it has the response; nc sends all.
  [ "$STAGE" = 01_blocking ] && start "$STAGE"
  local response
  response=$({
    printf 'POST / HTTP/1.0\r\nContent-Length: 10000000\r\n\r\n'
    cat "$body"
  } | ask)
  same "${response: -13}" 'Hello, world!'
}

# Sends a request whose body comes only after the response has been read to its
# end, and fails where the connection has been reset by then.
ends_orderly() { # request-format
  connect
  # shellcheck disable=SC2059 # the format is the request
  printf "$1" >"$BATS_TEST_TMPDIR/request"
  cat "$BATS_TEST_TMPDIR/request" >&"$client" # in one piece
  grep -q 'Hello, world!' <(timeout "$DEADLINE" cat <&"$client")
  # A reset would come after the first of these, and fail the second.
  printf 'x' >&"$client"
  wait_until has_read_all
  printf 'x' >&"$client"
  disconnect "$client"
}

@test "$STAGE: a client still sending reads the response's end, not a reset" {
  start "$STAGE"
  ends_orderly 'POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n'
}

# bats test_tags=whole
@test "$STAGE: a request that ends where a piece ends hides nothing behind it" {
  start "$STAGE"
  # 1024 bytes are read at once, and the last two of these are not among them.
  ends_orderly "GET /$(printf '%01008d' 1) HTTP/1.0\n\nxx"
}

@test "$STAGE: a GET that announces a body is not reset either" {
  start "$STAGE"
  ends_orderly 'GET / HTTP/1.0\r\ncontent-length: 2\r\n\r\n'
}

# bats test_tags=whole
@test "$STAGE: the console shows the request, and nothing a terminal obeys" {
  start "$STAGE"
  ask_for 'GET /\033[2J\tq HTTP/1.0\r\nA: \0\r\303\244\177\\\r\n\r\n' >/dev/null
  local shown='GET /\x1b[2J	q HTTP/1.0
A: \x00\x0d\xc3\xa4\x7f\

' dashes
  dashes=$(printf -- '-%.0s' {1..40})$'\n'
  [ "$STAGE" = 01_blocking ] && dashes=
  [ "$STAGE" = 06_tcp_options ] &&
    shown+=$'closed after 1 responses in 2 data segments (plain)\n'
  wait_until console_shows "$dashes$shown"
}

# Waits for the console to show a text after its first line.
console_shows() { # text
  [ "$(tail -n +2 "$out" && echo .)" = "$1." ]
}

@test "$STAGE: it starts again on the same port straight away" {
  local first
  start "$STAGE"
  first=$port
  # Whoever closes first is the one to keep TIME_WAIT.
  connect
  printf 'GET / HTTP/1.0\r\n\r\n' >&"$client"
  cat <&"$client"
  disconnect "$client"
  kill -TERM "$pid" 2>/dev/null || true
  wait_until ended
  wait_until has_sockets time-wait 1
  out=$BATS_TEST_TMPDIR/out err=$BATS_TEST_TMPDIR/err
  "$(program "$STAGE")" "$first" >"$out" 2>"$err" </dev/null 3>&- &
  pid=$!
  echo "$pid" >>"$BATS_TEST_TMPDIR/pids"
  wait_for_port
  same "$port" "$first"
  answers
}

# bats test_tags=whole
@test "$STAGE: it links libc and nothing else" {
  run ldd "$PROJECT/$STAGE/$STAGE"
  echo "$output"
  [ "$(grep -vcE 'linux-vdso|/ld-|libc\.' <<<"$output")" -eq 0 ]
}
