# What the pictures share. `run` reads this first, and names the file to write.
set terminal svg size 960,540 font 'sans-serif,20' noenhanced \
  background 'white'
set border 3
set tics nomirror out
unset key
set datafile separator '\t'
