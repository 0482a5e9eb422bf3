#!/bin/sh
# The last month of 5,500 simulated cardholders into a file: recent, so that labels given today are in time for them.
set -eu
start=$(python -c 'import datetime as d; print(d.datetime.now(d.UTC).date() - d.timedelta(days=31))')
exec fraudstream simulate -o "$1" --start "$start" --events 200000 --users 5500 --merchants 833 --fraud-rate 0.02 --seed 11
