# What lies on the file systems of some trees, and which processes have it open. Each tree is two
# arguments: its path, and its path as mountinfo writes it. Plain sh, coreutils, GNU find.
LC_ALL=C
export LC_ALL
cd /proc || exit 9
if ! find self -maxdepth 0 -printf '' 2>/dev/null; then
    echo X
    exit 0
fi
echo "N $(readlink self/ns/pid) $(cat 2/comm 2>/dev/null)"
devices=
number=0
while [ $# -gt 1 ]; do
    if seen=$(stat -L -c '%d %i %W' -- "$1" 2>&1); then
        echo "R $number $seen $(stat -L -f -c %T -- "$1" 2>/dev/null)"
        devices="$devices|${seen%% *}"
        while read -r _ _ device _ mount _; do
            case $mount in
            "$2"/*)
                major=${device%:*}
                minor=${device#*:}
                device=$(((major << 8) | (minor & 255) | ((minor >> 8) << 20)))
                echo "M $number $device $mount"
                devices="$devices|$device"
                ;;
            esac
        done <self/mountinfo
    else
        case $seen in
        *'No such file'* | *'Not a directory'*) ;;
        *) echo "E $number $seen" ;;
        esac
    fi
    shift 2
    number=$((number + 1))
done
if [ -n "$devices" ]; then
    set -- [0-9]*
    echo "P $#"
    {
        find -L [0-9]*/fd -mindepth 1 -maxdepth 1 -printf 'F %D %i %p\n'
        find -L [0-9]*/cwd [0-9]*/root [0-9]*/exe -maxdepth 0 -printf 'F %D %i %p\n'
        grep -HE '^[0-9a-f]+-[0-9a-f]+ .w.s [0-9a-f]+ [0-9a-f:]+ [1-9]' [0-9]*/maps |
            sed -n 's#^\([0-9]*\)/maps:0*\([0-9a-f]*\)-0*\([0-9a-f]*\) .*#\1/map_files/\2-\3#p' |
            xargs sh -c '[ $# = 0 ] || exec find -L "$@" -maxdepth 0 -printf "F %D %i %p\n"' -
    } | grep -E "^F (${devices#|}) "
fi
echo Z
