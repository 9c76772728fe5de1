# Arms what a node does by itself: a timer that starts a unit, and a hold that keeps others from it.
# $1 unit, $2 name of the timer, $3 seconds or nothing, $4 hold, $5 drop-in that heeds it,
# $6 text of the hold or nothing, $7 systemctl, $8 systemd-run
unit=$1 name=$2 seconds=$3 hold=$4 drop_in=$5 text=$6 ctl=$7 run=$8
if [ -n "$seconds" ]; then
    "$ctl" stop -- "$name.timer" >/dev/null 2>&1
    "$ctl" reset-failed -- "$name.timer" "$name.service" >/dev/null 2>&1
    "$run" --quiet --collect --unit="$name" --on-active="$seconds" \
        --timer-property=AccuracySec=100ms /bin/sh -c 'rm -f -- "$1"
for try in 1 2 3; do
    "$3" reset-failed -- "$2"
    "$3" start -- "$2" && exit 0
    sleep 1
done
exit 1' sh "$hold" "$unit" "$ctl" || exit 1
    "$ctl" is-active --quiet -- "$name.timer" || { echo "the timer is not active" >&2; exit 1; }
fi
if [ -n "$text" ] && [ -e "$drop_in" ]; then
    mkdir -p -- "${hold%/*}" && printf '%s\n' "$text" >"$hold.new" && mv -f -- "$hold.new" "$hold" ||
        exit 1
fi
echo "guard armed"
