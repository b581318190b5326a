# Runs a program and ends it when its holder ends: the test process, which holds the other end of the pipe on
# standard input. The kernel closes that pipe however the holder dies, so the holder needs no handler.
#
#   sh -c SCRIPT watchdog STATE DIR SIGNAL PATIENCE PROGRAM [ARGUMENT...]
#
# The files STATE.pid and STATE.exit tell the holder the program's process id and its exit status. When the pipe
# closes, the watchdog sends the program SIGNAL and, PATIENCE seconds later, SIGKILL, and then removes DIR. It keeps
# DIR if the holder writes "keep" before it closes the pipe.

state=$1 dir=$2 signal=$3 patience=$4
shift 4
exec 3<&0 </dev/null

(
    order=
    read -r order <&3
    # If the program has already ended, its process id may now belong to another process.
    if [ ! -s "$state.exit" ]; then
        tries=0 pid=
        # The holder may end before the program has started.
        until { read -r pid <"$state.pid"; } 2>/dev/null || [ "$tries" -ge 100 ]; do
            tries=$((tries + 1))
            sleep 0.05
        done
        kill -s "$signal" "$pid"
        # A stopped program receives no signal except SIGKILL until it is continued.
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

# The program runs in the foreground, since a shell starts background programs with SIGINT ignored. The inner shell
# becomes the program, so the process id that it writes is the program's. PWD and the other two variables are unset
# because the shells add them.
sh -c 'echo "$$" >"$0.pid"; unset PWD OLDPWD SHLVL; exec "$@"' "$state" "$@" 3<&-
echo "$?" >"$state.exit"

if ! wait "$watcher"; then
    # Processes that the program left behind may still be writing to DIR.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf "$dir" && break
        sleep 0.2
    done
fi
