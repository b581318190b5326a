# Runs a program and ends it no later than its holder, the test process, which holds the other end of the
# pipe on standard input. The kernel closes that pipe however the holder dies: no handler has to run there.
#
#   sh -c SCRIPT watchdog STATE DIR SIGNAL PATIENCE PROGRAM [ARGUMENT...]
#
# STATE.pid and STATE.exit tell the holder the program's process id and its exit status. When the pipe closes,
# the program gets SIGNAL, PATIENCE seconds later SIGKILL, and then DIR is removed. A holder that writes
# "keep" before it closes the pipe keeps DIR.

state=$1 dir=$2 signal=$3 patience=$4
shift 4
exec 3<&0 </dev/null

(
    order=
    read -r order <&3
    # The program may have ended long ago: its id may be another process' by now.
    if [ ! -s "$state.exit" ]; then
        tries=0 pid=
        # The holder may be gone before the program has even begun.
        until { read -r pid <"$state.pid"; } 2>/dev/null || [ "$tries" -ge 100 ]; do
            tries=$((tries + 1))
            sleep 0.05
        done
        kill -s "$signal" "$pid"
        # A frozen program sees no signal but SIGKILL until it is continued.
        kill -s CONT "$pid"
        tries=0
        until [ -s "$state.exit" ]; do
            tries=$((tries + 1))
            if [ "$tries" -eq $((patience * 40)) ]; then kill -s KILL "$pid"; fi
            if [ "$tries" -ge $((patience * 40 + 400)) ]; then break; fi
            sleep 0.025
        done
    fi 2>/dev/null
    [ "$order" = keep ]
) &
watcher=$!

# The program runs in the foreground, since a shell starts background programs with SIGINT ignored. The inner
# shell becomes the program, so the id it writes is the program's. PWD and its like are this script's doing.
sh -c 'echo "$$" >"$0.pid"; unset PWD OLDPWD SHLVL; exec "$@"' "$state" "$@" 3<&-
echo "$?" >"$state.exit"

if ! wait "$watcher"; then
    # Children that the program left behind may still be writing.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf "$dir" && break
        sleep 0.2
    done
fi
