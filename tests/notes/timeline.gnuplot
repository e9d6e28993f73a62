# Draws the rows that `timeline` has measured: from, row, length, kind.
set terminal svg size 860,420 font 'sans,13' background 'white'
set output svg
set border 1
set xlabel 'seconds'
set xrange [0:0.75]
set yrange [0.3:10.2]
set xtics nomirror
set ytics nomirror scale 0 ( \
  '02  server' 9, 'slow client' 8, 'quick client' 7, \
  '03  server' 6, 'slow client' 5, 'quick client' 4, \
  '05  server' 3, 'slow client' 2, 'quick client' 1)
set grid xtics lc rgb '#dddddd'
set arrow from 0,6.5 to 0.75,6.5 nohead lc rgb '#999999'
set arrow from 0,3.5 to 0.75,3.5 nohead lc rgb '#999999'
set key above horizontal samplen 1.5
kind(file, number) = sprintf("< awk '$4 == %d' %s", number, file)
plot kind(server, 1) using 1:2:3:(0) with vectors nohead lw 14 lc rgb '#4477aa' \
    title 'asleep in accept', \
  kind(server, 2) using 1:2:3:(0) with vectors nohead lw 14 lc rgb '#ee6677' \
    title 'in recv', \
  kind(server, 3) using 1:2:3:(0) with vectors nohead lw 14 lc rgb '#228833' \
    title 'in pselect or epoll\_pwait', \
  kind(clients, 4) using 1:2:3:(0) with vectors nohead lw 14 lc rgb '#bbbbbb' \
    title 'client dawdles', \
  kind(clients, 5) using 1:2:3:(0) with vectors nohead lw 14 lc rgb '#222222' \
    title 'client waits for the response'
