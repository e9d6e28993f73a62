# select against epoll as idle connections grow: reads results.tsv, writes
# idle.svg.

set title 'What one request costs while other clients only hold connections'
set xlabel 'idle connections'
set ylabel 'CPU time per request, microseconds'
set xrange [0:*]
set yrange [0:*]
set key right center spacing 1.4
set bars small
set rmargin 5

results(server) = "< grep '^idle\t" . server . "\t' results.tsv | cut -f 3,6-8"

# Where select ends: the last of its points, and the highest.
stats results('03_select') using 1 name 'IDLE' nooutput
stats results('03_select') using 2 name 'TIME' nooutput
set label "select: no further\nthan FD_SETSIZE" \
  at IDLE_max, TIME_max left offset 1.5, -0.5

plot results('03_select') using 1:2:3:4 with yerrorlines \
    lw 3 pt 7 ps 0.9 dt 1 lc rgb 'black' title '03_select', \
  results('04_epoll_lt') using 1:2:3:4 with yerrorlines \
    lw 3 pt 4 ps 1.2 dt 2 lc rgb 'gray30' title '04_epoll_lt', \
  results('05_epoll_et') using 1:2:3:4 with yerrorlines \
    lw 3 pt 8 ps 1.4 dt 3 lc rgb 'gray40' title '05_epoll_et'
