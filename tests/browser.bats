#!/usr/bin/env bats
# A browser, Debian's chromium without a window, as the client. Whether it opens
# a spare connection is up to its predictions, so these are turned off; where a
# test wants a spare connection, it opens one.

load common

# shellcheck disable=SC2034 # for wait_until
PATIENCE=3 # a browser takes a while to begin

# Starts the browser on the page of the server. With --dump-dom, it writes the
# page to $page, and ends; without, it stays. Sets $browser. It gets its SIGTERM
# even where timeout is killed.
browse() { # [option...]
  local home
  home=$(mktemp -d "$BATS_TEST_TMPDIR/browser.XXXXXX")
  page=$home/page
  said=$home/said
  mkdir "$home/Default"
  echo '{"net":{"network_prediction_options":2}}' >"$home/Default/Preferences"
  in_background env HOME="$home" timeout 200 setpriv --pdeathsig TERM chromium --headless \
    --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update \
    --disable-sync --user-data-dir="$home" \
    --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \
    "$@" "$url" >"$page" 2>"$said"
  browser=$started
}

# Opens a connection on which nothing is said. Sets $spare.
open_spare() {
  in_background nc -d 127.0.0.1 "$port"
  spare=$started
  wait_until has_sockets established 1
}

shows_page() {
  grep -q 'Hello, world!' "$page"
}

# True when the console has shown so many requests for a path.
was_asked() { # path times
  [ "$(grep -c "^GET $1 " "$out")" -ge "$2" ]
}

@test "a browser shows the page of each stage" {
  for stage in 01_blocking 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et \
    keep_alive 06_tcp_options; do
    start "$stage"
    browse --dump-dom
    wait_until shows_page
    wait_until ended "$browser"
  done
}

@test "a browser asks for /favicon.ico as well" {
  start 04_epoll_lt
  browse --remote-debugging-port=0
  wait_until was_asked /favicon.ico 1
  was_asked / 1
}

@test "a spare connection holds up 02: the page waits for its end" {
  start 02_blocking_loop
  open_spare
  browse --dump-dom
  wait_until eval 'sockets established | grep -q "^[1-9][0-9][0-9]"' # a request nobody has read
  sleep 2 # it looks for so long
  run ! shows_page
  run ! was_asked / 1
  kill "$spare"
  wait_until shows_page
}

@test "a spare connection does not hold up 03" {
  start 03_select
  open_spare
  browse --dump-dom
  wait_until shows_page
  wait_until has_sockets established 1 # the spare one is still there
}

@test "06 keeps a browser's connection for one page after the other" {
  start 06_tcp_options
  browse --remote-debugging-port=0
  wait_until grep -q '^DevTools listening on ' "$said"
  devtools=$(sed -n 's,^DevTools .*//\([^/]*\)/.*,\1,p' "$said")
  for number in 1 2 3; do
    wait_until was_asked / "$number"
    # Another page, in the same browser.
    curl -sS --max-time 10 -X PUT "http://$devtools/json/new?$url" >/dev/null
  done
  wait_until was_asked / 4
  kill "$browser"
  wait_until grep -E '^closed after ([2-9]|[1-9][0-9]+) responses' "$out"
}

@test "the book has every link's target, asks no host, and fits any window" {
  local book=$BATS_TEST_TMPDIR/book.html width
  "$BATS_TEST_DIRNAME/notes/book" "$book"
  same "$(comm -23 <(grep -oE 'href="#[^"]*"' "$book" | sed 's/href="#//' | sort -u) \
    <(grep -oE ' id="[^"]*"' "$book" | sed 's/ id="//' | sort -u))" ''
  run ! grep -oE '<(img|script|link)[^>]* (src|href)="?(https?:|//)' "$book"
  run ! grep -oE '<a href="[^#h][^"]*"' "$book"
  run ! grep -oE '<img [^>]*alt="".*' "$book"
  (($(grep -o '<img ' "$book" | wc -l) == $(grep -c '^!\[' "$PROJECT/NOTES.md")))
  # No window without a head is narrower than 500 points, but a page can be.
  echo '<script>const widths = [document.body.scrollWidth <= innerWidth]
    document.body.style.cssText = "width: 360px; padding: 0; margin: 0"
    widths.push(document.body.scrollWidth)
    document.write("<i>" + widths + "</i>")</script>' >>"$book"
  url=file://$book
  for width in 500 1280; do
    browse --dump-dom --window-size="$width,800"
    wait_until ended "$browser"
    grep -o '<i>[a-z0-9,]*</i>' "$page"
    grep -q '<i>true,360</i>' "$page"
  done
}
